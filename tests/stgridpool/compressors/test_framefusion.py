"""FrameFusion: the original's budgets, counts by hand, and what it does in a decoder."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stgridpool import FrameFusion, FrameFusionMerge, Step, VideoTokens, build_compressor, compress_tokens
from stgridpool.compressors.framefusion import FrameFusionLayer
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.evidence import QueryAttention
from stgridpool.layer_average import released_ratio

ATTENTION = {QueryAttention(layer): torch.arange(1000.0) for layer in range(27)}  # the last tokens get most


def test_the_cut_follows_the_formula_of_the_original(golden):
    """Of 200,000 tokens, sparsities per layer and a mean over 28 layers leave what the code computes, rounded down.

    A sparsity of 1 - share of the tokens before is that many tokens before the next layer. The original leaves all
    of them where the mean allows for more.
    """
    cases = json.loads((golden / "sttm" / "manifest.json").read_text())["framefusion_pruning_ratio"]
    assert len(cases) == 7
    for case in cases:
        counts = [200_000]
        for sparsity in case["sparsity_list"]:
            counts.append(round(counts[-1] * (1 - sparsity)))
        layer = len(counts) - 1
        step = FrameFusionLayer(layer, merges=layer == 0, total=28 * case["cost"], threshold=-1)
        tokens = VideoTokens(torch.ones(counts[-1], 1), (counts[-1], 1, 1), before=tuple(counts[:-1]))
        plan = step.plan(tokens, {QueryAttention(layer - 1): torch.ones(counts[-1])} if layer else {})
        assert len(plan) == pytest.approx(counts[-1] * (1 - case["ratio"]), abs=1), case


def test_released_cuts_are_those_of_the_original(golden):
    """The same cases by the code's rounding, exactly, but 1 at least; after a sparsity of 0 the next layer is cut."""
    cases = json.loads((golden / "sttm" / "manifest.json").read_text())["framefusion_pruning_ratio"]
    for case in cases:
        assert released_ratio(case["sparsity_list"], 28 * case["cost"]) == pytest.approx(case["ratio"], abs=1e-12), case
    for total, cost, left in ((1000, 0.3, 274), (999, 0.3, 274), (998, 0.3, 274), (997, 0.5, 480), (3, 0.06, 1)):
        step = FrameFusionLayer(1, total=28 * cost, preset="released")
        tokens = VideoTokens(torch.ones(total, 1), (total, 1, 1), before=(total,))
        plan = step.plan(tokens, {QueryAttention(0): torch.arange(float(total))})
        assert len(plan) == max(1, round(total * (28 * cost - 1) / 27)) == left


def test_released_mergings_are_those_of_the_original(golden):
    """Before layer 0: to the number that the mean asks for, or, in the last case, of nothing that is alike."""
    cases = json.loads((golden / "sttm" / "manifest.json").read_text())["framefusion_merge"]
    tensors = load_file(golden / "sttm" / "framefusion_merge.safetensors")
    assert len(cases) == 4
    for case in cases:
        visual = slice(case["sys"], case["sys"] + case["T"] * case["P"])
        tokens = tensors[f"{case['tag'].removesuffix('.s0')}.h"][0, visual]
        method = FrameFusion(case["cost"], preset="released")
        plan = method.steps()[0].compressor.plan(VideoTokens(tokens, (case["T"], 1, case["P"])), {})
        kept = tensors[f"{case['tag']}.kept"]
        kept = kept[(kept >= visual.start) & (kept < visual.stop)]
        assert (plan.anchor + visual.start).tolist() == kept.tolist(), case
        expected = tensors[f"{case['tag']}.h"][0, visual.start : visual.start + len(kept)]
        torch.testing.assert_close(plan.apply(tokens), expected, atol=1e-5, rtol=0)


def released_run(tokens, cost, depth):
    """The released rule with its state, written out: the tokens left after each layer's action, and where they are.

    Merging is over where as many tokens are alike as must go, rounded down; the code goes on if the threshold alone
    made them as many.
    """
    values = {(frame, place): token for frame, row in enumerate(tokens[:, 0]) for place, token in enumerate(row)}
    scores = {where: torch.tensor(float(index)) for index, where in enumerate(values)}  # those of `ATTENTION`
    sparsities, state, counts = [], "merging", []
    for _ in range(min(depth, 28)):
        shares = [math.prod(1 - sparsity for sparsity in sparsities[:end]) for end in range(len(sparsities) + 1)]
        must = max(0, 1 - (28 * cost - sum(shares[1:])) / ((28 - len(sparsities)) * shares[-1]))
        if state == "merging":
            cosine, before = {}, {}
            for (frame, place), value in values.items():
                if place in before:
                    cosine[frame, place] = float(F.cosine_similarity(value, before[place], 0))
                before[place] = value
            joins = [where for where, value in cosine.items() if value >= 0.6]
            if len(joins) < int(must * len(values)):
                sparsities.append(len(joins) / len(values))
                state = "merging" if sparsities[-1] >= 0.1 else "cutting"
            else:
                joins = sorted(cosine, key=cosine.get, reverse=True)[: int(must * len(values))]
                state = "over"
            values, scores = released_merging(values, joins), released_merging(scores, joins)
        elif state == "cutting":
            state = "over"
            kept = sorted(values, key=scores.get, reverse=True)[: round(len(values) * (1 - must))]
            values = {where: values[where] for where in sorted(kept)}
        counts.append(len(values))
    return counts, list(values)


def released_merging(values, joins):
    """The means of chains: every token joins the one before it at its place, or begins a chain."""
    chains, begin = {}, {}
    for (frame, place), value in values.items():
        if (frame, place) not in joins:
            begin[place] = frame
        chains.setdefault((begin[place], place), []).append(value)
    return {where: torch.stack(chains[where]).mean(0) for where in sorted(chains)}


@pytest.mark.parametrize("depth", [12, 28, 80])
def test_released_runs_follow_the_rule_written_out(depth):
    """Frames that are more or less alike, so that layers merge, cut, or merge to the number asked for."""
    generator = torch.Generator().manual_seed(depth)
    kinds = set()
    for cost in (0.15, 0.3, 0.6):
        for change in (0.1, 0.8, 1.5, 9.0):
            steps = torch.randn(12, 1, 9, 6, generator=generator)
            tokens = steps[:1] + change * steps
            counts, left = left_at_each_layer(FrameFusion(cost, preset="released").for_depth(depth), tokens)
            expected, where = released_run(tokens, cost, depth)
            assert counts == expected, (cost, change)
            assert left.cells().tolist() == [frame * 9 + place for frame, place in where]
            kinds.add(len({*counts}))
    assert kinds >= {1, 2, 3}


def still(frames, changes):
    """Frames of 10 tokens on one row, of which in each frame the first `changes` are like nothing before them."""
    tokens = torch.zeros(frames, 1, 10, 10 * frames + 10)
    for frame in range(frames):
        for place in range(10):
            channel = 10 * frame + 10 + place if place < changes else place
            tokens[frame, 0, place, channel] = 1
    return tokens


def left_at_each_layer(method, tokens):
    """The tokens before each layer that acts, and those left."""
    count = tokens[..., 0].numel()
    left, _ = compress_tokens(method, VideoTokens.of(tokens), {need: ATTENTION[need][:count] for need in method.needs})
    return [*left.before[1:], len(left)], left


def test_it_merges_while_that_pays_then_cuts():
    """100 tokens, 28 layers of 30 on average: 840. Layer 0: all but the 10 x 8 changed merge, that is 18 of 100.

    Layer 1 finds nothing to merge, less than a tenth; so layer 2 cuts: (840 - 82 - 82) / 26 = 26.
    """
    tokens = still(10, 8)
    counts, left = left_at_each_layer(FrameFusion(), tokens)
    assert counts == [82, 82, 26, 26, 26]
    assert sum(counts[:2]) + 26 * 26 == 840
    merged = FrameFusionMerge(threshold=0.6)(tokens).plan.anchor
    assert torch.equal(left.cells(), merged[-26:])


def test_a_layer_that_merges_little_is_the_last():
    """Layer 0 merges 9 of 100, so that layer 1 cuts: (840 - 91) / 27 = 27.7, rounded down."""
    counts, _ = left_at_each_layer(FrameFusion(), still(10, 9))
    assert counts == [91, 27, 27, 27, 27]
    counts, _ = left_at_each_layer(FrameFusion(least_merged=0.05), still(10, 9))
    assert counts == [91, 91, 25, 25, 25]  # (840 - 182) / 26 = 25.3


def test_merging_alone_may_be_enough():
    """Nothing changes: 90 of 100 could merge, but 30 may remain; the first of equals merge."""
    tokens = still(10, 0)
    counts, left = left_at_each_layer(FrameFusion(), tokens)
    assert counts == [30] * 5
    joins = torch.zeros(100, dtype=torch.bool)
    joins[10:80] = True
    assert torch.equal(left.cells(), (~joins).nonzero().flatten())
    assert float(left.features.sum()) == pytest.approx(30)


def test_the_last_layer_that_may_merge_is_followed_by_the_cut():
    """One merging layer: the next one cuts, however much was merged. (840 - 82) / 27 = 28.07."""
    method = FrameFusion(merging_layers=1)
    assert [step.place for step in method.steps()] == [0, 1]
    assert left_at_each_layer(method, still(10, 8))[0] == [82, 28]


def test_a_mean_that_keeps_all_keeps_all():
    counts, _ = left_at_each_layer(FrameFusion(1.0), torch.randn(4, 2, 3, 5))
    assert set(counts) == {24}


@pytest.mark.parametrize("average", [0.1, 0.3, 0.55])
@pytest.mark.parametrize("depth", [12, 28, 80])
def test_the_mean_over_layers_is_met(average, depth):
    """It is never above, and below by less than a token a layer."""
    torch.manual_seed(depth)
    for tokens in (torch.randn(5, 3, 4, 3), torch.randn(1, 3, 4, 3).expand(5, -1, -1, -1) + torch.randn(5, 3, 4, 3)):
        counts, _ = left_at_each_layer(FrameFusion(average).for_depth(depth), tokens)
        held = sum(counts) + counts[-1] * (depth - len(counts))
        assert average * depth * 60 - depth < held <= average * depth * 60 + 1e-6


def test_steps_follow_the_depth():
    assert [step.place for step in FrameFusion().steps()] == [0, 1, 2, 3, 4]
    assert FrameFusion().steps()[2] == Step(FrameFusionLayer(2, True, 0.3 * 28, 28, 0.6, 0.1), 2, "survive")
    assert FrameFusion().for_depth(80).depth == 80
    assert [step.place for step in FrameFusion().for_depth(8).steps()] == [0, 1, 2]  # 2.4 layers' worth
    assert FrameFusion().needs == {QueryAttention(layer) for layer in range(4)}
    assert FrameFusion().query_aware
    with pytest.raises(ValueError, match=r"layer_average must be above 1/3 for 3 layers, .* got 0\.3"):
        FrameFusion().for_depth(3).steps()


@pytest.mark.parametrize(("options", "acting"), [({"merging_layers": 2}, 3), ({"preset": "released"}, 6)])
@torch.inference_mode()
def test_in_a_decoder(make_decoder, options, acting):
    """What layers hold is what the plans say, and positions survive; without a cut in sight the model is unchanged."""
    model = make_decoder(6)
    embeds = torch.randn(1, 45, 32)
    embeds[0, 12:36] = embeds[0, :12].repeat(2, 1) + 0.01 * torch.randn(24, 32)
    span = VisualSpan(torch.arange(36), (3, 3, 4), torch.empty(0, dtype=torch.long))
    method = FrameFusion(0.5, **options).for_depth(6)
    with DecoderSteps(TransformersDecoder(model), method.steps()).prompts([[span]]) as prompts:
        model(inputs_embeds=embeds)
    assert [len(plan) for [plan] in prompts.plans[0]] == [18] * acting  # 24 would merge, 18 are enough
    with DecoderSteps(TransformersDecoder(model), FrameFusion(1.0).for_depth(6).steps()).prompts([[span]]):
        same = model(inputs_embeds=embeds).logits
    torch.testing.assert_close(same, model(inputs_embeds=embeds).logits)


def test_it_goes_on_from_pruned_tokens():
    tokens = VideoTokens(torch.randn(50, 4), (5, 3, 4), torch.arange(60)[torch.arange(60) % 6 != 1])
    left, _ = compress_tokens(FrameFusion(), tokens, {need: torch.rand(50) for need in FrameFusion().needs})
    assert len(left) <= math.floor((0.3 * 28 * 50) / 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_average": 0}, "layer_average must be a number above 0"),
        ({"threshold": 2}, "threshold must be a number from -1 to 1"),
        ({"least_merged": 2}, "least_merged must be a number from 0 to 1"),
        ({"merging_layers": 0}, "merging_layers must be a whole number from 1 to 1000"),
        ({"merging_layers": 2, "preset": "released"}, "merging_layers=2 needs preset='corrected'"),
        ({"positions": "keep"}, "positions cannot be 'keep'"),
        ({"depth": 0}, "depth must be a whole number from 1 to 1000"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build_compressor("framefusion", **options)
