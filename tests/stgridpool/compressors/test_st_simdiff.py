"""ST-SimDiff: golden numbers of both steps, components by hand, the mean over layers."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from golden_methods import CASES, golden_method
from stgridpool import STSimDiff, build_compressor, compress_tokens
from stgridpool.compressors.st_simdiff.graph import cosines_to_earlier, like_neighbours
from stgridpool.compressors.st_simdiff.st_simdiff import STSimDiffCut, STSimDiffGraph
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.evidence import QueryAttention
from stgridpool.video_tokens import VideoTokens


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "st_simdiff")


def test_every_golden_case_is_listed(original):
    assert sorted({variant["case"] for variant in original[0]}) == CASES
    assert len(original[0]) == 120


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(golden, original, case):
    """Outside tokens whose weights are equal but for rounding, which the golden numbers list as ambiguous."""
    variants, tensors = original
    features = load_file(golden / "methods" / "inputs" / f"{case}.safetensors")["x"].float()
    for variant in (variant for variant in variants if variant["case"] == case):
        key = f"{case}.{variant['tag']}."
        expected = {name[len(key) :]: value.long() for name, value in tensors.items() if name.startswith(key)}
        width = variant["W"] - variant["newline"]
        maps = features.view(variant["T"], variant["H"], width, -1)
        if variant["newline"]:
            newline = tensors["newline"].float().expand(*maps.shape[:2], 1, -1)
            maps = torch.cat([maps, newline], 2)
        directions = [
            name
            for name, is_on in (
                ("time", variant["temporal"]),
                ("right", variant["right"] and variant["spatial"]),
                ("below", variant["bottom"] and variant["spatial"]),
            )
            if is_on
        ]
        method = STSimDiff(
            variant["cost"],
            preset="released",
            similarity=variant["tau_sim"],
            event=variant["event"],
            directions=directions,
            score={3: "pairs", 2: "size"}[variant["strategy"]],
        )
        graph = like_neighbours(maps, method.similarity, method.event, method.directions)
        assert torch.equal(graph.label, expected["component"]), key
        assert torch.equal(graph.is_event.nonzero().flatten(), expected["event"])
        tokens = VideoTokens.of(maps)
        plan = STSimDiffGraph(method).plan(tokens, {})
        assert len(plan) == variant["kept"], key
        certain = torch.ones(len(tokens), dtype=torch.bool)
        certain[expected.get("ambiguous", torch.empty(0, dtype=torch.long))] = False
        kept = [index for index in plan.anchor.tolist() if certain[index]]
        assert kept == [index for index in expected["kept"].tolist() if certain[index]], key
        left = tokens.through(plan)
        scores = (torch.arange(1, len(left) + 1, dtype=torch.float64) * 0.6180339887498949) % 1
        second = STSimDiffCut(method).plan(left, {QueryAttention(1): scores})
        assert len(second) == variant["kept_after_prune"]
        assert second.anchor.tolist() == expected["kept2_in_merged"].tolist()


# Two frames of three tokens: the first stays, the second turns by 26 degrees, the third by a right angle.
CLIP = torch.tensor([[[1.0, 0, 0], [0, 2, 0], [0, 0, 1]], [[3, 0, 0], [0, 0.9, 0.44], [1, 0, 0]]])[:, None]


def first_step(maps, preset="corrected", layer_average=0.3, **more):
    return (
        STSimDiffGraph(STSimDiff(layer_average, preset=preset, **more)).plan(VideoTokens.of(maps), {}).kept().tolist()
    )


def test_components_by_hand():
    graph = like_neighbours(CLIP, 0.8, 0.2, ("time",))
    assert graph.label.tolist() == [0, 1, -1, 0, 1, -1]
    assert graph.is_event.tolist() == [False] * 5 + [True]
    assert like_neighbours(CLIP, 0.8, 0.2, ("right", "below")).label.tolist() == [-1] * 6
    assert like_neighbours(CLIP, 0.4, 0.2, ("right",)).label.tolist() == [-1] * 6
    turned = CLIP.transpose(1, 2)  # the same tokens below each other
    assert like_neighbours(turned, 0.95, 0.2, ("time",)).label.tolist() == [0, -1, -1, 0, -1, -1]
    assert like_neighbours(CLIP[1:].expand(1, 2, -1, -1), 0.9, 0.2, ("below",)).label.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("average", "released", "corrected"),
    [
        (0.5, [2, 3, 4, 5], [0, 1, 2, 5]),  # ceil(2 * 0.5) of each pair, the earlier or the later one of equals
        (0.3, [2, 5], [0, 1, 2, 5]),  # ceil(2 * 0.7) is a whole pair, and both pairs are 4 of 4.2 tokens
        (0.9, [0, 1, 2, 3, 4, 5], [0, 1, 2, 4, 5]),  # 0.6 of a token may go: none, or as many as leave 5 of 5.4
    ],
)
def test_what_goes_by_hand(average, released, corrected):
    assert first_step(CLIP, "corrected", average, directions=("time",)) == corrected
    assert first_step(CLIP, "released", average, directions=("time",)) == released


def test_a_still_video():
    """196 equal tokens: in the released code 138 do not fit into 137.2, so that nothing goes; of 200 go 140."""
    still = torch.ones(4, 7, 7, 3)
    assert len(first_step(still, "released")) == 196
    assert first_step(still) == list(range(58))
    assert len(first_step(torch.ones(4, 5, 10, 3), "released")) == 60


def test_events_stay():
    """Tokens 1 and 2 of a row are alike; that the second one is new saves it, and the component drops nobody else."""
    clip = torch.tensor([[[0.0, 1], [1, 0]], [[1, 0], [1, 0]]])[:, None]  # token 2 is new, and like its neighbour 3
    graph = like_neighbours(clip, 0.8, 0.2, ("right",))
    assert graph.label.tolist() == [-1, -1, 2, 2]
    assert graph.is_event.tolist() == [False, False, True, False]
    assert first_step(clip, "corrected", 0.5, directions=("right",)) == [0, 1, 2]


@pytest.mark.parametrize("average", [0.15, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("depth", [16, 28, 80])
def test_the_mean_over_layers_is_met(golden, average, depth):
    """It is never above, and below by less than a token a layer."""
    maps = load_file(golden / "methods" / "inputs" / "s03_scenes.safetensors")["x"].float().view(16, 7, 7, 32)
    method = STSimDiff(average).for_depth(depth)
    left, _ = compress_tokens(method, VideoTokens.of(maps), {need: torch.rand(784) for need in method.needs})
    first, last = left.before[1], len(left)
    held = 2 * first + (depth - 2) * last
    assert average * depth * 784 - depth < held <= average * depth * 784 + 1e-6


def test_the_released_code_assumes_28_layers_in_any_model():
    """No token is like another, so that nothing goes before the cut, which leaves 0.3 of them whatever the depth."""
    maps = torch.randn(16, 7, 7, 32, generator=torch.Generator().manual_seed(0))
    for depth in (16, 28, 80):
        method = STSimDiff(0.3, preset="released").for_depth(depth)
        left, _ = compress_tokens(method, VideoTokens.of(maps), {need: torch.rand(784) for need in method.needs})
        assert len(left) == round(0.3 * 784)


@torch.inference_mode()
def test_in_a_decoder(make_decoder):
    model = make_decoder(6)
    embeds = torch.randn(1, 45, 32)
    embeds[0, 12:36] = embeds[0, :12].repeat(2, 1) + 0.01 * torch.randn(24, 32)
    span = VisualSpan(torch.arange(36), (3, 3, 4), torch.empty(0, dtype=torch.long))
    steps = DecoderSteps(TransformersDecoder(model), STSimDiff(0.5).for_depth(6).steps())
    with steps.prompts([[span]]) as prompts:
        model(inputs_embeds=embeds)
    # Every place is a component of three, of which ceil(1.5) may go: 18 in all, which is what the mean asks for.
    assert [len(plan) for [plan] in prompts.plans[0]] == [18, 18]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "paper"}, "preset cannot be 'paper'"),
        ({"layer_average": 0}, "layer_average must be a number above 0"),
        ({"similarity": 2}, "similarity must be a number from -1 to 1"),
        ({"event": 2}, "event must be a number from -1 to 1"),
        ({"directions": "time"}, "directions must be a list of time, right, below, got 'time'"),
        ({"directions": ["left"]}, "directions cannot be 'left'"),
        ({"score": "mean"}, "score cannot be 'mean'"),
        ({"layer": 0}, "layer must be a whole number from 1 to 1000"),
        ({"positions": "keep"}, "positions cannot be 'keep'"),
        ({"depth": 0}, "depth must be a whole number from 1 to 1000"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build_compressor("st_simdiff", **options)


def test_where_it_acts():
    assert [step.place for step in STSimDiff().steps()] == [0, 2]
    assert STSimDiff().needs == {QueryAttention(1)}
    assert STSimDiff().query_aware
    with pytest.raises(ValueError, match=r"layer_average must be above 2/4, .* got 0\.3"):
        STSimDiff().for_depth(4).steps()


def test_neighbours_of_frames_of_many_blocks():
    """3 rows of 70000 channels fill a block, so that the rows of a frame, four at least at a time, make two."""
    maps = torch.randn(3, 6, 2, 70000, generator=torch.Generator().manual_seed(0))
    found = cosines_to_earlier(maps)
    for name, axis in {"time": 0, "below": 1, "right": 2}.items():
        count = maps.shape[axis] - 1
        expected = F.cosine_similarity(maps.narrow(axis, 1, count), maps.narrow(axis, 0, count), dim=-1)
        torch.testing.assert_close(found[name].narrow(axis, 1, count), expected, atol=1e-5, rtol=0)
        assert (found[name].narrow(axis, 0, 1) == -torch.inf).all()
    assert torch.equal(cosines_to_earlier(maps[:1])["right"], found["right"][:1])
