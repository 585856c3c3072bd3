"""FastVID: golden numbers of both released forms, a segment by hand, budgets where the original crashes."""

import pytest
import torch

from golden_methods import check_features, golden_method, runs_of_case
from stgridpool import FastVID, build_compressor
from stgridpool.evidence import AttentionReceived, FrameVectors, PoolHeadAttention

NEEDS = (PoolHeadAttention(), FrameVectors("pool_head"))


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "fastvid")


CASES = ["s00_blocky", "s01_smooth", "s02_random", "s03_scenes", "s04_blocky", "s05_smooth", "s06_random"]
CASES += ["s08_scenes", "s09_blocky", "s10_scenes", "s11_smooth"]


def test_every_golden_case_is_listed(original):
    assert sorted({variant["case"] for variant in original[0]}) == CASES
    assert len(original[0]) == 154


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(golden, original, case):
    for name, variant, tokens, inputs in runs_of_case(golden, original[0], case):
        method = FastVID(
            tokens_per_frame=int(variant["R"] * variant["H"] * variant["W"]),
            preset={"vid": "released", "ov": "released_onevision"}[variant["mode"]],
            context=variant["d"],
            period=variant["p"],
            segments=variant["c"],
        )
        out, plan = method(tokens, {NEEDS[0]: inputs["imp"].flatten(), NEEDS[1]: inputs["frame_emb"].float()})
        assert plan.anchor.tolist() == original[1][f"{name}.kept"].tolist(), name
        assert len(plan) == variant["total"]
        assert method.planned_count(tokens.shape[:3]) == (variant["target"] if variant["mode"] == "vid" else None)
        check_features(out, original[1], name, variant["has_features"])


# Two frames of four tokens, one segment, whose anchor frame is the second. Tokens 0 and 4 are salient.
TOKENS = torch.tensor([[7.0, 7], [2, 0], [0, 1], [1, 1], [8, 8], [1, 0], [1, 0.1], [0, 3]]).view(2, 2, 2, 2)
BY_HAND = {
    NEEDS[0]: torch.tensor([0.7, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1]),
    NEEDS[1]: torch.tensor([[1.0, 0], [1, 0]]),
}


@pytest.mark.parametrize(
    ("preset", "sixth", "seventh"), [("released", [1, 3, 5], [2]), ("released_onevision", [1, 3, 5, 6], [2, 7])]
)
def test_a_segment_by_hand(preset, sixth, seventh):
    """Of tokens 5, 6, 7 the densest is 6, and 7 is far from it: scores 0.013, 0.465, 0.085."""
    method = FastVID(tokens=4, preset=preset, context=0.5, segments=1)
    out, plan = method(TOKENS, BY_HAND)
    assert plan.anchor.tolist() == [0, 4, 6, 7]
    flat = TOKENS.view(8, 2)
    expected = [
        flat[0],
        flat[4],
        0.6 * flat[6] + 0.4 * flat[sixth].mean(0),
        0.6 * flat[7] + 0.4 * flat[seventh].mean(0),
    ]
    torch.testing.assert_close(out, torch.stack(expected))


@pytest.mark.parametrize(
    ("options", "salient", "context"),
    [
        ({"tokens": 4, "segments": 2}, [2, 2], [0, 0]),  # int(0.4 * 2) context tokens each
        ({"tokens": 5}, [2, 1], [0, 2]),
        ({"tokens": 7, "context": 1}, [3, 0], [0, 4]),  # an anchor frame has four tokens: the other keeps three
        ({"retention": 1.0}, [4, 3], [0, 1]),
        ({"tokens": 1}, [1, 0], [0, 0]),
        ({"tokens": 5, "period": 1}, [2, 1], [1, 1]),
        ({"tokens": 6, "period": 1, "context": 0.5}, [2, 1], [1, 2]),  # the later anchor frame has one more
    ],
)
def test_budgets_are_met_where_the_original_crashes(options, salient, context):
    method = build_compressor("fastvid", **{"segments": 1} | options)
    out, plan = method(TOKENS, BY_HAND)
    assert len(out) == len(plan) == method.planned_count((2, 2, 2)) == sum(salient + context)
    frames = plan.anchor // 4
    assert torch.bincount(frames, minlength=2).tolist() == [salient[0] + context[0], salient[1] + context[1]]
    assert plan.sizes().sum() >= len(plan)


def test_needs_and_bad_options():
    assert FastVID().needs == set(NEEDS)
    assert FastVID(importance="received", frames="mean").needs == {AttentionReceived(), FrameVectors("mean")}
    assert not FastVID().query_aware
    assert [step.place for step in FastVID().steps()] == ["tokens"]
    for options, message in (
        ({"preset": "paper"}, "preset cannot be 'paper'"),
        ({"importance": "cls"}, "importance cannot be 'cls'"),
        ({"frames": "first"}, "source cannot be 'first'"),
        ({"context": 40}, "context must be a number from 0 to 1, got 40"),
        ({"period": 0}, "period must be a whole number from 1 to 1000"),
        ({"segments": 0}, "segments must be a whole number"),
        ({"threshold": 9}, "threshold must be a number from -1 to 1"),
        ({"self_weight": -1}, "self_weight must be a number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            FastVID(**options)
