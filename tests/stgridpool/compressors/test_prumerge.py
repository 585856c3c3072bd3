"""PruMerge: golden numbers of the original, both presets by hand, edges, frames of different sizes."""

import pytest
import torch

from stgridpool import PruMerge, VideoTokens
from stgridpool.evidence import AttentionReceived, ClassAttention, TowerKeys

ATTENTION, KEYS = AttentionReceived(joined=True), TowerKeys(joined=True)


def test_equals_the_original(prumerge_cases):
    """Ratios that the code counts or is given, and the same as a budget, which counts the extra token."""
    variants = [variant for variant in prumerge_cases.variants if variant["mode"] == "base"]
    assert len(variants) == 18
    for variant in variants:
        share = "adaptive" if variant["adaptive"] else variant["ratio"]
        prumerge_cases.compare(PruMerge(attention_share=share, importance="class"), variant)
        prumerge_cases.compare(PruMerge(tokens_per_frame=variant["tokens_out"], importance="class"), variant)


# Tokens of a frame of 1x4, whose digits tell where they went; 0 and 1 have similar keys, and so do 2 and 3.
TOKENS = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(1, 1, 4, 1)
EVIDENCE = {
    ATTENTION: torch.tensor([0.4, 0.1, 0.3, 0.2]),
    KEYS: torch.tensor([[1.0, 0.0], [2.0, 0.2], [0.0, 1.0], [0.3, 3.0]]),
}


@pytest.mark.parametrize(
    ("options", "expected", "places"),
    [
        ({"tokens": 3, "neighbours": 1}, [1 + 1, 100 + 200, 1 + 200], [0, 2, 3]),
        ({"tokens": 3, "neighbours": 1, "preset": "corrected"}, [2 / 1.1, 300 / 1.2, 201 / 0.3], [0, 2, 3]),
        ({"tokens": 3, "neighbours": 2}, [1 + 1 + 200, 100 + 200 + 1, 201], [0, 2, 3]),  # 0 and 2 are at right angles
        ({"tokens": 3}, [1 + 1 + 30 + 200, 100 + 0.4 + 1 + 200, 201], [0, 2, 3]),  # centres merge into centres
        ({"tokens": 3, "neighbours": 0}, [1, 100, 201], [0, 2, 3]),
        ({"tokens": 1}, [0.4 + 1 + 30 + 200], [0]),  # no centre
        ({"tokens": 4, "neighbours": 1}, [1 + 1, 100 + 200, 1000 + 30, 1], [0, 2, 3, 1]),
        ({"attention_share": 0.7, "neighbours": 0}, [1, 100, 201], [0, 2, 3]),  # 2.8 rounded down
        ({"attention_share": "adaptive"}, [0.4 + 1 + 30 + 200], [0]),  # no outlier
    ],
)
def test_by_hand(options, expected, places):
    method = PruMerge(**options)
    out, plan = method(TOKENS, EVIDENCE)
    by_place = dict(zip(places, expected, strict=True))
    assert plan.anchor.tolist() == sorted(places)
    torch.testing.assert_close(out.flatten(), torch.tensor([float(by_place[place]) for place in sorted(places)]))
    assert method.planned_count((1, 1, 4)) in (len(plan), None)


def test_outliers_are_counted_in_the_whole_video():
    """Quartiles of eight values are 1 and 1; two stand out, so each frame of 4 has int(4 * 2 / 8) centres."""
    attention = torch.tensor([1.0, 1.0, 1.0, 1.0, 9.0, 8.0, 1.0, 1.0])
    evidence = {ATTENTION: attention, KEYS: torch.randn(8, 2)}
    method = PruMerge(attention_share="adaptive", neighbours=0)
    assert method(torch.randn(2, 2, 2, 3), evidence).plan.anchor.tolist() == [0, 1, 4, 5]
    assert method.planned_count((2, 2, 2)) is None


def test_frames_of_different_sizes():
    """A frame of one token has no centre, and an empty one nothing; neighbours are of the same frame."""
    tokens = VideoTokens(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]), (3, 2, 2), torch.tensor([3, 8, 9, 10]))
    evidence = {ATTENTION: EVIDENCE[ATTENTION], KEYS: torch.ones(4, 2)}
    plan = PruMerge(tokens=3).plan(tokens, evidence)
    assert plan.anchor.tolist() == [0, 2, 3]
    torch.testing.assert_close(plan.apply(tokens.features).flatten(), torch.tensor([0.4, 100 + 1 + 200, 1 + 200]))
    assert PruMerge(tokens=1).plan(tokens, evidence).anchor.tolist() == [0]  # the others' shares are 0
    assert PruMerge(attention_share="adaptive").planned_count((3, 2, 2), 4) is None


def test_attention_may_be_nothing():
    """The mean of tokens without attention is their mean."""
    evidence = {ATTENTION: torch.zeros(4), KEYS: torch.zeros(4, 2)}
    out = PruMerge(tokens=2, preset="corrected")(TOKENS, evidence).tokens
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, 370.0]))


@pytest.mark.parametrize(("preset", "count"), [("released", 10), ("corrected", 8)])
def test_centres_for_all_tokens_leave_an_extra_token_in_the_released_preset_only(preset, count):
    method = PruMerge(attention_share=1, preset=preset)
    out, plan = method(torch.randn(2, 2, 2, 3), {ATTENTION: torch.rand(8), KEYS: torch.randn(8, 2)})
    assert len(out) == len(plan) == method.planned_count((2, 2, 2)) == count


def test_needs_and_bad_options():
    assert PruMerge().needs == {ATTENTION, KEYS}
    assert PruMerge(importance="class").needs == {ClassAttention(0, joined=True), TowerKeys(0, joined=True)}
    assert PruMerge() == PruMerge(retention=0.25, preset="released", importance="received", neighbours=32)
    assert not PruMerge().query_aware
    assert PruMerge(attention_share=0.1).planned_count((2, 5, 5)) == 6
    for options, message in (
        ({"preset": "paper"}, r"preset cannot be 'paper'.*released"),
        ({"importance": "pool_head"}, "importance cannot be 'pool_head'"),
        ({"neighbours": -1}, "neighbours must be a whole number from 0 to 1000, got -1"),
        ({"attention_share": "auto"}, "attention_share cannot be 'auto'"),
        ({"attention_share": 0}, "attention_share must be a number above 0 and at most 1, got 0"),
        ({"attention_share": 0.1, "tokens": 4}, r"given in one way, got \{'tokens': 4, 'attention_share'"),
    ):
        with pytest.raises(ValueError, match=message):
            PruMerge(**options)
