"""EarlyTom: golden numbers of the halves in front, by hand, edges."""

import pytest
import torch
from safetensors.torch import load_file

from golden_methods import golden_method, prints
from stgridpool import EarlyTom, EarlyTomFrames, Step, compress_tokens
from stgridpool.compressor import TOKENS, EncoderLayer
from stgridpool.compressors.holitom.inner import HoliTomInner
from stgridpool.evidence import AttentionReceived
from stgridpool.frame_evidence import frame_weights
from stgridpool.plan import Plan
from stgridpool.video_tokens import VideoTokens

MIXING = {"mixing": "pairs", "naive_mixing": "mean"}
LAYERS = (-20, -5, -3)


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "earlytom")


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
    assert EarlyTom(layers=[-2], inner_retention=1).steps()[0] == Step(EarlyTomFrames(layers=(-2,)), EncoderLayer(-2))
    assert method.query_aware
    assert not EarlyTom(inner_retention=1).query_aware
    assert method.planned_count((8, 4, 4)) is None
