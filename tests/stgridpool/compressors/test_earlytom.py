"""EarlyTom: golden numbers of the halves in front, by hand, edges."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import EarlyTom, Step, compress_tokens
from stgridpool.compressor import TOKENS, EncoderLayer
from stgridpool.compressors.earlytom.frames import EarlyTomFrames
from stgridpool.compressors.holitom.inner import HoliTomInner
from stgridpool.evidence import AttentionReceived
from stgridpool.frame_evidence import frame_weights
from stgridpool.plan import Plan
from stgridpool.video_tokens import VideoTokens

MIXING = {"mixing": "pairs", "naive_mixing": "mean"}
LAYERS = (-20, -5, -3)


@pytest.fixture(scope="module")
def original(golden):
    folder = golden / "methods" / "earlytom"
    return json.loads((folder / "manifest.json").read_text())["variants"], load_file(folder / "earlytom.safetensors")


def prints(rows):
    return torch.stack([rows.sum(-1), rows @ (torch.arange(rows.shape[-1]) / rows.shape[-1])], -1)


CASES = [f"s{number:02d}" for number in range(12)]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(golden, original, case):
    """One to three rounds of merging frames, and then the selection of tokens."""
    variants = [one for one in original[0] if one["case"].startswith(case)]
    for variant in variants:
        inputs = load_file(golden / "methods" / "inputs" / f"{variant['case']}.safetensors")
        name, calls = f"{variant['case']}.{variant['tag']}", variant["calls"]
        tokens = VideoTokens.of(inputs["x"].float().view(variant["T"], variant["H"], variant["W"], -1))
        options = {"threshold": variant["tau"], "longest": variant["M"], "momentum": variant["ema"]}
        options |= {"mixing": MIXING[variant["mode"]], "layers": LAYERS[:calls], "preset": "released"}
        method = EarlyTom(inner_retention=1, **options)
        left, plan = tokens, None
        for count in variant["frames_after_call"]:
            step = method.frames.plan(left, {})
            left, plan = left.through(step), step if plan is None else plan.then(step)
            assert left.shape[0] == count, name
        weights = frame_weights(plan, tokens.shape)
        torch.testing.assert_close(weights, original[1][f"{name}.frame_weights"], atol=1e-4, rtol=0)
        found = prints(left.features).view(len(weights), -1, 2)
        torch.testing.assert_close(found, original[1][f"{name}.feat_fp"], atol=2e-3, rtol=0)
        for outer in variant["outer"]:
            method = EarlyTom(outer["R"], inner_retention=1, **options)
            evidence = {AttentionReceived(LAYERS[calls - 1]): inputs["imp"].flatten()}
            selected, chosen = compress_tokens(method, tokens, evidence)
            kept = original[1][f"{name}.R{round(100 * outer['R'])}.kept"].long()
            assert len(chosen) == outer["total"] == len(kept), name
            torch.testing.assert_close(selected.features, left.features[kept], atol=2e-4, rtol=0)
    assert variants


def test_every_golden_case_is_compared(original):
    assert len(original[0]) == 84
    assert sum(len(variant["outer"]) for variant in original[0]) == 132
    assert {variant["case"][:3] for variant in original[0]} <= set(CASES)


def test_groups_by_hand():
    """Cosine 1 with the first two, 0.5 with the third: a running mean of 0.5 * 0.5 + 0.5 * 1 is below 0.8."""
    cosines = torch.eye(5)
    cosines[0, 1], cosines[0, 2], cosines[2, 3:] = 1, 0.5, 1
    frames = EarlyTomFrames(threshold=0.8, longest=3, momentum=0.5, mixing="pairs", is_released=False)
    assert frames.groups(cosines) == [(0, 2), (2, 4), (4, 5)]  # three frames would be the longest
    assert frames.groups(torch.ones(1, 1)) == [(0, 1)]


def frames_at(*angles):
    """Frames of one token, at these angles in degrees."""
    radians = torch.tensor(angles).deg2rad()
    return VideoTokens.of(torch.stack([radians.cos(), radians.sin()], -1).view(-1, 1, 1, 2))


@pytest.mark.parametrize(("is_released", "rows"), [(False, [[0], [1, 2], [3], [4]]), (True, [[0], [1, 2], [4]])])
def test_pairs_by_hand(is_released, rows):
    """Two like frames in the middle merge; the last of the middle follows nothing, and only the code loses it."""
    method = EarlyTomFrames(threshold=-1, longest=1000, momentum=0.9, mixing="pairs", is_released=is_released)
    plan = method.plan(frames_at(0, 20, 22, 50, 60), {})
    of_row = plan.rows.sources.split(plan.rows.offsets.diff().tolist())
    assert [sources.tolist() for sources in of_row] == rows
    one, other = torch.tensor([2.0, 28.0]).deg2rad().cos()
    torch.testing.assert_close(plan.rows.weights[1:3], torch.stack([one, other]) / (one + other))


def test_the_last_pair_is_even():
    plan = EarlyTomFrames(-1, 1000, 0.9, "pairs", False).plan(frames_at(0, 20, 22, 60), {})
    assert plan.rows.sources.tolist() == [0, 1, 2, 3]
    assert plan.rows.weights.tolist() == [1, 0.5, 0.5, 1]
    plan = EarlyTomFrames(-1, 1000, 0.9, "mean", False).plan(frames_at(0, 20, 22, 40, 60), {})
    assert plan.rows.weights.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 1])


@pytest.mark.parametrize("retention", [0.1, 0.25, 0.5, 1.0])
def test_the_budget_is_exact(retention):
    """Of 12 frames some are merged; what is kept is a fraction of all 12, or all that is left."""
    maps = torch.randn(1, 5, 6, 8) + 0.4 * torch.randn(12, 5, 6, 8)
    method = EarlyTom(retention, inner_retention=1, threshold=0.3)
    frames, plan = VideoTokens.of(maps), None
    for _ in LAYERS:
        frames = frames.through(method.frames.plan(frames, {}))
    assert frames.shape[0] < 12
    plan = method(maps, {AttentionReceived(-3): torch.rand(360)}).plan
    assert len(plan) == min(int(retention * 360), len(frames))
    assert isinstance(plan, Plan)


def test_where_it_acts():
    method = EarlyTom()
    places = [step.place for step in method.steps()]
    assert places == [EncoderLayer(-20), EncoderLayer(-5), EncoderLayer(-3), TOKENS, 18]
    assert method.steps()[-1] == Step(HoliTomInner(0.5, layer=18), 18, "survive")
    assert EarlyTom(layers=[-2], inner_retention=1).steps()[0] == Step(method.frames, EncoderLayer(-2))
    assert method.query_aware
    assert not EarlyTom(inner_retention=1).query_aware
    assert method.planned_count((8, 4, 4)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "layers must be ascending, at least one"),
        ({"layers": (-2, -5)}, "layers must be ascending"),
        ({"layers": (3,)}, "layers must be a list of whole numbers from -1000 to -1"),
        ({"mixing": "max"}, "mixing cannot be 'max'"),
        ({"threshold": 2}, "threshold must be a number from -1 to 1"),
        ({"longest": 1}, "longest must be a"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyTom(**options)
