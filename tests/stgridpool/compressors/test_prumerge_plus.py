"""PruMerge+: golden numbers of the authors' code and of a port to SigLIP, lattices by hand."""

import pytest
import torch

from stgridpool import PruMergePlus, VideoTokens
from stgridpool.evidence import AttentionReceived, TowerKeys


def test_equals_the_original(prumerge_cases):
    """Adaptive ones with up to 577 of 576 tokens, and given ratios with centres that stand twice."""
    variants = [variant for variant in prumerge_cases.variants if variant["mode"] == "plus"]
    assert len(variants) == 8
    assert max(variant["tokens_out"] for variant in variants) == 577
    for variant in variants:
        share = "adaptive" if variant["adaptive"] else variant["ratio"]
        prumerge_cases.compare(PruMergePlus(attention_share=share, importance="class"), variant)


def test_equals_the_port_to_siglip(prumerge_cases):
    """Budgets of 5, 10 and 20 % of 27x27, and one more."""
    variants = [variant for variant in prumerge_cases.variants if variant["mode"] == "siglip"]
    assert len(variants) == 6
    for variant in variants:
        assert variant["tokens_out"] == int(729 * variant["budget"]) + 1
        prumerge_cases.compare(PruMergePlus(tokens_per_frame=variant["tokens_out"]), variant)


def _places(attention, shape=None, **options):
    """Where the centres are; without neighbours they are tokens, so that the extra token is told by its value."""
    attention = torch.tensor(attention)
    tokens = VideoTokens(torch.ones(len(attention), 1), shape or (1, 1, len(attention)), None)
    evidence = {AttentionReceived(joined=True): attention, TowerKeys(joined=True): torch.ones(len(attention), 2)}
    plan = PruMergePlus(neighbours=0, **options).plan(tokens, evidence)
    is_centre = plan.rows.weights[plan.rows.offsets[:-1].clamp_max(len(plan.rows.weights) - 1)] == 1
    return plan.anchor[is_centre].tolist()


TWELVE = [0.03, 0.02, 0.01, 0.02, 0.03, 0.02, 0.5, 0.02, 0.01, 0.02, 0.4, 0.02]
"""Two of twelve stand out: 6 and 10. The quartiles are 0.02 and 0.03."""


@pytest.mark.parametrize(
    ("options", "centres"),
    [
        ({"tokens": 6}, [0, 2, 4, 6, 10]),  # two by attention; 12 // 5 = 2: 0, 2, 4 and, too many, 8
        ({"tokens": 3}, [6, 10]),
        ({"tokens": 2}, [6]),
        ({"attention_share": "adaptive"}, [0, 2, 4, 6, 8, 10]),  # f = 1/6, so 6 // 3 = 2
        ({"attention_share": 0.25}, [0, 2, 6, 6, 10, 10]),  # three by attention, 6, 10, 0; and 2, 6, 10
        ({"attention_share": 0.25, "preset": "corrected"}, [0, 2, 6, 10]),
        ({"attention_share": 0.1}, [5, 6]),  # one by attention, and 5, not 15
        ({"attention_share": 0.5}, [0, 1, 1, 3, 3, 4, 5, 6, 7, 9, 10]),  # 6, 10, 0, 4, 1, 3; and 1, 3, 5, 7, 9
    ],
)
def test_lattices_by_hand(options, centres):
    assert _places(TWELVE, **options) == centres


def test_the_last_token_is_on_the_corrected_lattice_only():
    """f = 0.25 of 4 and s = 1: 0, 1, 2, and 3 if it is not left out."""
    attention = [0.1, 0.9, 0.1, 0.1]
    assert _places(attention, attention_share="adaptive") == [0, 1, 2]
    assert _places(attention, attention_share="adaptive", preset="corrected") == [0, 1, 2, 3]


def test_without_outliers_the_lattice_is_the_first_token():
    assert _places([0.1] * 6, attention_share="adaptive") == [0]


def test_a_budget_is_met_in_every_frame():
    """Attention of frame 0 has one outlier in 8, of frame 1 none: the mean of 1/8 and 0 is less than a token."""
    attention = [0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1] + [0.2, 0.3] * 4
    assert _places(attention, (2, 2, 4), tokens_per_frame=3) == [0, 3, 8, 9]


def test_more_centres_than_tokens_by_hand():
    """f = 0.75 of 4 and a step of 1: three by attention, and all but the last. That one is lost for those that repeat.

    So the extra token has nothing left, and stands on the first place.
    """
    method = PruMergePlus(attention_share=0.75, neighbours=0)
    evidence = {AttentionReceived(joined=True): torch.rand(8) + 1, TowerKeys(joined=True): torch.ones(8, 2)}
    evidence[AttentionReceived(joined=True)][[3, 7]] = 0
    plan = method(torch.ones(2, 2, 2, 1), evidence).plan
    assert plan.anchor.tolist() == [0, 0, 0, 1, 1, 2, 2, 4, 4, 4, 5, 5, 6, 6]
    assert plan.apply(torch.ones(8, 1)).flatten().tolist() == [1, 1, 0, 1, 1, 1, 1] * 2
    assert method.planned_count((2, 2, 2)) == 14


def test_counts_and_bad_options():
    assert PruMergePlus(tokens=30).planned_count((4, 5, 5)) == 30
    assert PruMergePlus(attention_share=0.125).planned_count((2, 24, 24)) == 2 * 145
    assert PruMergePlus(attention_share=0.125, preset="corrected").planned_count((2, 24, 24)) is None
    assert PruMergePlus(attention_share="adaptive").planned_count((2, 24, 24)) is None
    with pytest.raises(ValueError, match=r"got \{'retention': 0.1, 'attention_share'"):
        PruMergePlus(attention_share="adaptive", retention=0.1)
