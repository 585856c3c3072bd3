"""SparseVLM against the original's choices and merged tokens; options and counts by hand."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import SparseVLM, Step, VideoTokens, build_compressor
from stgridpool.compressor import planned_counts
from stgridpool.decoder.attention_rows import attention_received
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.evidence import QueryAttention, RotaryBias


def rotary_bias(rows, columns, head_dim):
    """2 / sqrt(d) times the sum of cos((p_i - p_j) 10000^(-2u/d)) over half of the head: (columns, rows)."""
    frequencies = 10000.0 ** (-2 * torch.arange(head_dim // 2) / head_dim)
    apart = (columns[:, None] - rows)[:, :, None].double()
    return ((apart * frequencies).cos().sum(2) * 2 / head_dim**0.5).float()


def evidence_of(method, variant, tensors, tokens, positions, raters):
    """What a stage asks for, of a layer whose queries and keys are a product with the hidden states."""
    hidden, count = tensors[f"{variant['case']}.h"].float(), len(tokens)
    prefix, num_heads, width = variant["prefix"], variant["heads"], variant["head_dim"]
    text = len(hidden) - variant["text"]
    hidden = torch.cat([hidden[:prefix], tokens.features, hidden[text:]])
    queries, keys = (
        (hidden @ tensors[f"{variant['case']}.{name}"].float().T).unflatten(1, (num_heads, width)).transpose(0, 1)
        for name in ("wq", "wk")
    )
    rows, columns = prefix + count + raters, prefix + torch.arange(count)
    [need] = [need for need in method.needs if isinstance(need, QueryAttention)]
    assert need.rows == "relevant"
    evidence = {need: attention_received(queries[:, rows], keys, rows, columns, width**-0.5, need.reduce)}
    if method.plus:
        bias = rotary_bias(positions[rows], positions[columns], width)
        evidence[RotaryBias(need.layer, "relevant")] = bias
    return evidence


def test_equals_the_original(golden):
    """All 18 cases, three stages each; tokens of the original have merged ones last, ours in order of place."""
    folder = golden / "methods" / "sparsevlm"
    variants = json.loads((folder / "manifest.json").read_text())["variants"]
    tensors, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "sparsevlm.safetensors")
    assert len(variants) == 18
    for variant in variants:
        name, total = f"{variant['case']}.{variant['tag']}", variant["H"] * variant["W"]
        keep = tuple(count / total for count in variant["keep_list"])
        method = SparseVLM(preset=None, keep=keep, plus=variant["version"] == 2)
        hidden = tensors[f"{variant['case']}.h"].float()
        visual, before = hidden[variant["prefix"] :][:total], ()
        positions, raters = torch.arange(len(hidden)), expected[f"{name}.raters"].long()
        for stage, step in enumerate(method.steps()):
            tokens = VideoTokens(visual, (1, 1, len(visual)), before=before)
            evidence = evidence_of(step.compressor, variant, tensors, tokens, positions, raters)
            plan = step.compressor.plan(tokens, evidence)
            kept = expected[f"{name}.s{stage}.kept"].long()
            assert set(kept.tolist()) <= set(plan.anchor.tolist()), name
            assert len(plan) == variant["visual_after"][stage]
            assert step.compressor.planned_count((1, variant["H"], variant["W"])) == len(plan)
            out = plan.apply(visual)
            prints, wanted = torch.stack([out.sum(1), out @ (torch.arange(32) / 32)], 1), f"{name}.s{stage}.visual_fp"
            order = (expected[wanted][:, None] - prints).abs().amax(2).argmin(1)
            assert order.unique().numel() == len(plan)
            torch.testing.assert_close(prints[order], expected[wanted], atol=2e-3, rtol=0)
            assert plan.anchor[order[: len(kept)]].tolist() == kept.tolist()
            if not method.plus:
                merged = expected[f"{name}.s{stage}.recycled"]
                torch.testing.assert_close(out[order[len(kept) :]], merged, atol=2e-4, rtol=0)
            visual, before = out[order], (*before, len(visual))
            positions = expected[f"{name}.s{stage}.positions"].long()
        assert method.planned_count((1, variant["H"], variant["W"])) == variant["visual_after"][-1]


def test_a_stage_by_hand():
    """2 of 7 are kept; of the five dropped, int(1.5) + 1 = 2 become one, the others disappear."""
    [step] = SparseVLM(preset=None, keep=[0.3], layers=[2]).steps()
    scores = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.6, 0.7, 0.1])
    tokens = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]).view(1, 1, 7, 1)
    out, plan = step.compressor(tokens, {QueryAttention(1, "relevant"): scores})
    assert plan.anchor.tolist() == [1, 4, 5]  # of two that are equally central the one with more attention, 4
    assert out.flatten().tolist() == [2.0, 10.0, 32.0]  # 4 and 16 are merged, 1, 8 and 64 dropped


def test_a_few_tokens_are_left_of_few():
    """A single token stays; of two, one is kept, and the other is the one that is merged."""
    method = SparseVLM()
    for count in (1, 2, 3):
        shape = (1, 1, count)
        evidence = {need: torch.ones(count) for need in method.needs}
        assert len(method(torch.randn(*shape, 4), evidence).plan) == method.planned_count(shape)
    assert [method.planned_count((1, 1, count)) for count in (1, 2)] == [1, 2]


@pytest.mark.parametrize("preset", ["released/192", "plus/192"])
def test_acts_inside_a_decoder(make_decoder, preset):
    """Of 48 tokens 25, 16 and 9 are kept, and of those dropped one more remains at each stage, as planned."""
    model = make_decoder(num_layers=5)
    method = SparseVLM(preset=preset).for_depth(5)
    steps = DecoderSteps(TransformersDecoder(model), method.steps())
    span = VisualSpan(torch.arange(5, 53), (3, 4, 4), torch.empty(0, dtype=torch.long))
    with torch.inference_mode(), steps.prompts([[span]]):
        model(inputs_embeds=torch.randn(1, 60, 32, generator=torch.Generator().manual_seed(0)))
    [plans] = steps.last.plans
    more = 0 if method.plus else 1
    last = 9 if method.plus else 9 + more
    assert [len(plan) for [plan] in plans] == [25 + more, 16 + more, last]
    assert [len(plan) for [plan] in plans] == planned_counts(method.steps(), (3, 4, 4))


def test_where_it_acts_and_what_it_asks_for():
    method = SparseVLM()
    assert (method.preset, method.keep) == ("released/192", (300 / 576, 200 / 576, 110 / 576))
    assert [(step.place, step.positions) for step in method.steps()] == [(layer, "reassign") for layer in (3, 7, 16)]
    assert method.needs == {QueryAttention(layer, "relevant") for layer in (2, 6, 15)}
    assert method.query_aware
    assert method.planned_count((1, 24, 24)) == 113  # 576, 309, 204, 113
    plus = build_compressor("sparsevlm", preset="plus/64")
    assert plus.needs == {
        *(QueryAttention(layer, "relevant", "none") for layer in (2, 6, 15)),
        *(RotaryBias(layer, "relevant") for layer in (2, 6, 15)),
    }
    assert {step.positions for step in plus.steps()} == {"survive"}
    assert plus.planned_count((1, 24, 24)) == 20
    assert isinstance(method.steps()[0], Step)


def test_layers_follow_the_depth():
    assert SparseVLM().for_depth(32).layers == (3, 7, 16)
    assert SparseVLM().for_depth(28).layers == (2, 6, 14)
    assert SparseVLM().for_depth(4).layers == (1, 2, 3)
    with pytest.raises(ValueError, match=r"layers must be below the model's 3 layers, got \(1, 2, 3\)"):
        SparseVLM().for_depth(3)


def test_presets_and_bad_options():
    assert SparseVLM(keep=(0.5, 0.4, 0.3)).preset is None
    assert SparseVLM(plus=True).preset is None
    assert SparseVLM(keep=[count / 576 for count in (300, 200, 110)]).preset == "released/192"
    for options, message in (
        ({"preset": "192"}, "preset cannot be '192'"),
        ({"preset": None}, "without a preset, keep must be a list of fractions"),
        ({"keep": (0.5, 0.6, 0.1)}, r"keep must fall from layer to layer, got \(0.5, 0.6, 0.1\)"),
        ({"keep": (0.5,)}, r"layers and keep must be equally many, got \(3, 7, 16\) and \(0.5,\)"),
        ({"layers": (3, 3, 4)}, r"layers must ascend, got \(3, 3, 4\)"),
        ({"layers": (0, 3, 4)}, "layers must be a list of whole numbers from 1 to 1000"),
        ({"plus": "yes"}, "plus must be True or False"),
        ({"positions": "keep"}, "positions cannot be 'keep'"),
    ):
        with pytest.raises(ValueError, match=message):
            SparseVLM(**options)
