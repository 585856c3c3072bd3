"""FlashVID: golden numbers of both released selections."""

import math

import pytest
import torch
from safetensors.torch import load_file

from golden_methods import CASES, check_features, golden_method, runs_of_case
from stgridpool import FastV, FlashVID, Step
from stgridpool.evidence import AttentionReceived, QueryAttention

PRESETS = {"attn_div_v2": "released", "attn_div": "released_attn_div"}


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "flashvid")


def test_every_golden_case_is_listed(original):
    assert sorted({variant["case"] for variant in original[0]}) == CASES
    assert len(original[0]) == 74


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(golden, original, case):
    for name, variant, tokens, inputs in runs_of_case(golden, original[0], case):
        per_frame = math.ceil(variant["H"] * variant["W"] * variant["retention_ratio"] * variant["expansion"])
        assert per_frame == variant["per_frame_budget"]
        method = FlashVID(
            tokens_per_frame=per_frame,
            inner_retention=1,
            preset=PRESETS[variant["token_selection_method"]],
            selected=variant["alpha"],
            merge_threshold=variant["temporal_threshold"],
            segments=variant["min_segment_num"],
            threshold=variant["segment_threshold"],
        )
        out, plan = method(tokens, {AttentionReceived(): inputs["imp"].flatten()})
        assert plan.anchor.tolist() == original[1][f"{name}.anchor"].tolist(), name
        order = torch.tensor(sorted(range(len(plan)), key=lambda i: (int(plan.anchor[i]), float(out[i].sum()))))
        check_features(out[order], original[1], name, variant["has_features"])


# Three frames of two tokens: the first of each is attended to, the second is the same, only longer and longer.
CHAIN = torch.tensor([[[1.0, 0], [0, 1]], [[1, 0], [0, 2]], [[1, 0], [0, 3]]])[:, None]
ATTENTION = {AttentionReceived(): torch.tensor([1.0, 0.1] * 3)}


@pytest.mark.parametrize(("preset", "length"), [("corrected", 2), ("released", 3), ("released_attn_div", 3)])
def test_a_chain_by_hand(preset, length):
    """Four tokens: one is chosen in each frame, and one is left for the chain, whose root has a single child."""
    method = FlashVID(tokens=4, inner_retention=1, preset=preset, selected=0.5, segments=1, threshold=-1)
    out, plan = method(CHAIN, ATTENTION)
    assert plan.anchor.tolist() == [0, 1, 2, 4]
    torch.testing.assert_close(out, torch.tensor([[1.0, 0], [0, length], [1, 0], [1, 0]]))


def test_only_as_many_links_as_leave_enough():
    """Five tokens: one link of two may stay, the more alike one, from the last frame to the second."""
    clip = CHAIN.clone()
    clip[0, 0, 1, 0] = 0.3
    options = {"tokens": 5, "inner_retention": 1, "selected": 0.5, "segments": 1, "threshold": -1}
    out, plan = FlashVID(**options)(clip, ATTENTION)
    assert plan.anchor.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(out[3], torch.tensor([0, 2.5]))
    torch.testing.assert_close(out[1], clip[0, 0, 1])


@pytest.mark.parametrize("retention", [0.02, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("case", ["s01_smooth", "s03_scenes", "s11_smooth"])
def test_budgets_are_met_with_a_token_at_each_place(golden, case, retention):
    inputs = load_file(golden / "methods" / "inputs" / f"{case}.safetensors")
    side = {"s01_smooth": (14, 14), "s03_scenes": (7, 7), "s11_smooth": (6, 10)}[case]
    tokens = inputs["x"].float().view(-1, *side, 32)
    method = FlashVID(retention, inner_retention=1)
    plan = method(tokens, {AttentionReceived(): inputs["imp"].flatten()}).plan
    assert len(plan) == method.planned_count(tokens.shape[:3]) == int(retention * tokens[..., 0].numel() + 1e-9)
    assert plan.anchor.tolist() == sorted(set(plan.anchor.tolist()))
    if 0.1 <= retention < 1:  # a share of one token is chosen, and nothing merged
        assert int(plan.sizes().max()) > 1


def test_where_it_acts_and_bad_options():
    front, inside = FlashVID().steps()
    assert (front.place, inside.place) == ("tokens", 20)
    assert inside.compressor == FastV(0.3, layer=20)
    assert FlashVID(0.5, layer=3, positions="reassign").steps()[1] == Step(
        FastV(0.3, layer=3, positions="reassign"), 3, "reassign"
    )
    assert FlashVID().needs == {AttentionReceived(), QueryAttention(19)}
    assert FlashVID().query_aware
    assert not FlashVID(inner_retention=1).query_aware
    for options, message in (
        ({"preset": "paper"}, "preset cannot be 'paper'"),
        ({"importance": "cls"}, "importance cannot be 'cls'"),
        ({"selected": 70}, "selected must be a number from 0 to 1, got 70"),
        ({"merge_threshold": 80}, "merge_threshold must be a number from -1 to 1"),
        ({"segments": 0}, "segments must be a whole number from 1 to 1000"),
        ({"threshold": 2}, "threshold must be a number from -1 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            FlashVID(**options)
