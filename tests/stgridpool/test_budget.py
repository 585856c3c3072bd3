"""Budgets: counts, shares of frames and segments, averages over layers."""

import math
import re

import pytest
import torch

from stgridpool import Budget, build_compressor
from stgridpool.budget import BudgetError, exact_part, frames_where, share_equally, share_out, split_layer_average


def test_budget_counts():
    shape = (4, 3, 5)
    assert Budget().count(shape) is None
    assert Budget(ratio=0.5).count(shape) == 30
    assert Budget(ratio=0.001).count(shape) == 1
    assert Budget(ratio=1.0).count(shape) == 60
    assert Budget(tokens=17).count(shape) == 17
    assert Budget(tokens=100).count(shape) == 60
    assert Budget(tokens_per_frame=7).count(shape) == 28


def test_budget_counts_of_tokens_that_do_not_fill_their_lattice():
    shape = (4, 3, 5)
    assert Budget().count(shape, 33) is None
    assert Budget(ratio=0.5).count(shape, 33) == 16
    assert Budget(ratio=0.001).count(shape, 33) == 1
    assert Budget(tokens=40).count(shape, 33) == 33
    assert Budget(tokens=17).count(shape, 33) == 17
    assert Budget(tokens_per_frame=7).count(shape, 33) == 28
    assert Budget(tokens_per_frame=9).count(shape, 33) == 33


def test_seven_tenths_of_55_frames_of_196():
    assert Budget(ratio=0.7).count((55, 14, 14)) == 7546  # 0.7 * 10780 is 7545.999... in floating point
    assert exact_part(0.7, 55 * 196) == 7546
    assert exact_part(1 / 3, 9) == 3


@pytest.mark.parametrize("shape", [(55, 14, 14), (64, 14, 14), (10, 1, 1), (1, 3, 3), (100, 27, 27), (4096, 27, 27)])
def test_no_share_loses_a_token_to_rounding(shape):
    total = math.prod(shape)
    for percent in range(1, 101):  # 0.7 * 10780 is 7545.999... in floating point
        assert Budget(ratio=percent / 100).count(shape) == max(1, percent * total // 100)
    for tokens in range(1, min(total, 2000) + 1):
        assert Budget(ratio=tokens / total).count(shape) == tokens


def test_rounding_up_starts_from_the_fraction_to_drop_as_it_is_written():
    """``ceil(total * (1 - dropped))`` in floating point, which leaves 4 of 10 tokens if 0.7 of them are to go."""
    for dropped in range(1, 100):
        budget = Budget(ratio=(100 - dropped) / 100, rounding="up")
        for total in (10, 25, 75, 100, 196, 1350):
            assert budget.count((1, 1, total)) == math.ceil(total * (1 - dropped / 100)), (dropped, total)
    assert Budget(ratio=0.3, rounding="up").count((1, 1, 10)) == 4
    assert Budget(ratio=0.32, rounding="up").count((1, 1, 25)) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, "ratio must be a number above 0 and at most 1, got 0.0"),
        ({"ratio": 1.5}, "got 1.5"),
        ({"tokens": 0}, "tokens must be a whole number from 1 to 1000000000, got 0"),
        ({"tokens_per_frame": -1}, "tokens_per_frame must be a whole number from 1 to 1000000000, got -1"),
        ({"ratio": 0.5, "tokens": 3}, "given in one way"),
        ({"ratio": True}, "got True"),
        ({"ratio": math.nan}, "got nan"),
        ({"tokens": True}, "got True"),
    ],
)
def test_bad_budgets(options, message):
    with pytest.raises(ValueError, match=message):
        Budget(**options)


def shares(total, weight, at_most):
    return share_out(total, torch.tensor(weight), torch.tensor(at_most)).tolist()


@pytest.mark.parametrize(
    ("total", "weight", "at_most", "expected"),
    [
        (10, [1.0, 1.0, 2.0], [9, 9, 9], [3, 2, 5]),  # 2.5, 2.5, 5: of equal remainders the first is rounded up
        (7, [1.0, 1.0, 1.0], [9, 9, 9], [3, 2, 2]),
        (5, [6.0, 3.0, 1.0], [9, 9, 9], [3, 2, 0]),  # 3, 1.5, 0.5: one token for two equal remainders
        (5, [0.62, 0.32, 0.06], [9, 9, 9], [3, 2, 0]),  # 3.1, 1.6, 0.3
        (10, [3.0, 1.0, 1.0], [4, 9, 9], [4, 3, 3]),  # 6 is more than 4; the 2 left over are shared alike
        (12, [8.0, 2.0, 1.0, 1.0], [3, 2, 9, 9], [3, 2, 4, 3]),  # filling the first fills the second, too
        (6, [0.0, 1.0, 0.0], [4, 4, 4], [1, 4, 1]),  # what is above 0 is full, the others count the same
        (3, [0.0, 0.0], [9, 9], [2, 1]),
        (4, [1.0, 5.0], [9, 0], [4, 0]),
        (0, [1.0, 2.0], [3, 3], [0, 0]),
        (6, [1.0, 100.0], [3, 3], [3, 3]),
        (0, [], [], []),
    ],
)
def test_shares_by_hand(total, weight, at_most, expected):
    assert shares(total, weight, at_most) == expected


@pytest.mark.parametrize(
    ("total", "at_most", "expected"),
    [
        (7, [9, 9, 9], [2, 3, 2]),  # up to 2.33, 4.67 and 7 tokens: 2, 5, 7
        (8, [9, 9, 9], [3, 2, 3]),  # up to 2.67, 5.33 and 8: 3, 5, 8
        (2, [9] * 8, [0, 1, 0, 0, 0, 1, 0, 0]),  # up to 0.25, 0.5, ..., 1.25, 1.5: halves are rounded up
        (6, [9, 9, 1, 9, 9], [1, 2, 1, 1, 1]),  # 1.2 is more than 1; 5 in four shares: up to 1.25, 2.5, 3.75, 5
        (9, [2, 9, 0, 3, 9], [2, 2, 0, 3, 2]),  # 2.25 is more than 2; then 7 in three: 2.33, 4.67 and 7
        (6, [2, 1, 3], [2, 1, 3]),
        (0, [4, 0], [0, 0]),
        (0, [], []),
        (10**9, [10**9] * 3, [333333333, 333333334, 333333333]),
    ],
)
def test_equal_shares_spread_the_remainder(total, at_most, expected):
    assert share_equally(total, torch.tensor(at_most, dtype=torch.int64)).tolist() == expected


def test_equal_shares_differ_by_one_where_nothing_limits_them():
    for count in range(1, 13):
        limits = torch.randint(0, 9, (count,), generator=torch.Generator().manual_seed(count))
        for total in range(int(limits.sum()) + 1):
            share = share_equally(total, limits)
            assert int(share.sum()) == total
            assert bool((share <= limits).all())
            below = share[share < limits]
            assert not len(below) or int(share.max() - below.min()) <= 1
    with pytest.raises(ValueError, match="the tokens to share out must number 0 to 4, got 5"):
        share_equally(5, torch.tensor([2, 2]))


def test_every_total_is_shared_out_within_the_bounds():
    generator = torch.Generator().manual_seed(0)
    for seed in range(30):
        weight = torch.rand(7, generator=generator).pow(4) * (torch.rand(7, generator=generator) > 0.3)
        at_most = torch.randint(12, (7,), generator=generator)
        before = weight.clone(), at_most.clone()
        for total in range(int(at_most.sum()) + 1):
            share = share_out(total, weight, at_most)
            assert int(share.sum()) == total
            assert bool((share >= 0).all() and (share <= at_most).all()), (seed, total)
            # What nobody had to cut is within one token of its part.
            is_open = share < at_most
            if bool(is_open.any()) and bool((weight[~is_open] == 0).all()) and float(weight.sum()) > 0:
                assert (share - total * weight / weight.sum())[is_open].abs().max() < 1
        assert torch.equal(weight, before[0])
        assert torch.equal(at_most, before[1])


def test_weights_of_any_magnitude():
    assert shares(3, [1e30, 2e30], [9, 9]) == [1, 2]
    assert shares(3, [1e-30, 2e-30], [9, 9]) == [1, 2]
    assert share_out(3, torch.tensor([1, 2], dtype=torch.bfloat16), torch.tensor([9, 9])).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("total", "weight", "message"),
    [
        (7, [1.0, 1.0], "tokens to share out must number 0 to 6, got 7"),
        (-1, [1.0, 1.0], "must number 0 to 6, got -1"),
        (2, [1.0, -1.0], r"weights must be finite and at least 0, got \[1.0, -1.0\]"),
        (2, [1.0, math.nan], "must be finite"),
        (2, [1.0, math.inf], "must be finite"),
    ],
)
def test_shares_that_cannot_be(total, weight, message):
    with pytest.raises(ValueError, match=message):
        shares(total, weight, [3, 3])


@pytest.mark.parametrize(
    ("average", "lengths", "relative", "expected"),
    [
        (0.5, (2, 6), (None, 1), (1, 1 / 3)),  # FastV after layer 2 of 8: 2 + 6 r = 4
        (0.25, (0, 8), (None, 1), (1, 0.25)),
        # PyramidDrop, 4 segments of 8 layers: 8 + s (4 + 2 + 1) = 0.6 * 32, s = 1.6, and 0.8, 0.4, 0.2 of the tokens
        (0.6, (8,) * 4, (None, 0.5, 0.25, 0.125), (1, 0.8, 0.4, 0.2)),
        (15 / 32, (8,) * 4, (1, 0.5, 0.25, 0.125), (1, 0.5, 0.25, 0.125)),
        # FlashVID, before and after layer 20 of 28: r (20 + 0.3 * 8) = 0.2 * 28
        (0.2, (20, 8), (1, 0.3), (0.25, 0.075)),
        # 20 + 2.4 of 28 would need r = 1.125 for 25.2: the first keeps all, the second takes (25.2 - 20) / 8
        (0.9, (20, 8), (1, 0.3), (1, 0.65)),
        # 8 + s * 7 = 0.9 * 32 = 28.8, s = 2.97: the second is full, and so is the third; 28.8 - 24 over 8 for the last
        (0.9, (8,) * 4, (None, 0.5, 0.25, 0.125), (1, 1, 1, 0.6)),
        (1, (4, 4), (None, 0.5), (1, 1)),
        (0.3, (10,), (7,), (0.3,)),
        (1, (3,), (None,), (1,)),
        (0.5, (8, 0), (1, 0.5), (0.5, 0.25)),
        (1, (4, 4, 0), (1, 0.5, 0.1), (1, 1, 1)),  # nothing bounds a segment without layers
        (1, (4, 0), (None, 1), (1, 1)),
    ],
)
def test_averages_over_layers(average, lengths, relative, expected):
    found = split_layer_average(average, lengths, relative)
    assert found == pytest.approx(expected, rel=1e-12)
    assert sum(length * part for length, part in zip(lengths, found, strict=True)) == pytest.approx(
        average * sum(lengths), rel=1e-12
    )
    assert all(0 < part <= 1 for part in found)


@pytest.mark.parametrize(
    ("average", "lengths", "relative", "message"),
    [
        (
            0.2,
            (8, 24),
            (None, 1),
            r"8 of 32 layers keep all tokens, so the mean over layers must be above 0\.25, got 0\.2",
        ),
        (0.25, (8, 24), (None, 1), "raise it or compress earlier"),
        (0.5, (8,), (None,), "8 of 8 layers keep all tokens"),
        (0, (8,), (1,), "average must be a number above 0 and at most 1, got 0"),
        (1.2, (8,), (1,), r"got 1\.2"),
        (0.5, (0, 0), (1, 1), "lengths must be 0 or more, at least one of them above 0, got"),
        (0.5, (4, -1), (1, 1), "lengths must be 0 or more, at least one of them above 0, got"),
        (0.5, (4, 4), (1, 0), "shares must be finite numbers above 0, or None, got"),
        (0.5, (4, 4), (1, math.nan), "shares must be finite numbers above 0, or None, got"),
        (0.5, (4, 4), (1,), "one share per segment, got 1 for 2 segments"),
    ],
)
def test_averages_that_cannot_be(average, lengths, relative, message):
    with pytest.raises(ValueError, match=message):
        split_layer_average(average, lengths, relative)


def test_numbers_of_frames_at_which_a_budget_can_be_met():
    assert frames_where(lambda frames: frames in (4, 7, 8, 9)) == "this budget works with 4, 7 to 9 frames"
    assert frames_where(lambda frames: frames > 1) == "this budget works with 2 to 64 frames"
    assert frames_where(lambda frames: frames % 4 == 0) == "this budget works with 4, 8, 12, 16, ... frames"
    assert frames_where(lambda frames: False) == "this budget works with no number of frames up to 64"


@pytest.mark.parametrize(
    ("name", "retention", "frames", "works"),
    [
        ("dycoke_ttm", 0.5, 1, "2 to 64"),  # one whole frame of every four
        ("dycoke_ttm", 0.3, 5, "4, 7 to 8, 10 to 12, 14 to 64"),
        ("temporal_average", 0.25, 1, "4, 8, 12, 16, ..."),
        ("framefusion_merge", 0.25, 2, "4 to 64"),  # a whole frame
    ],
)
def test_a_budget_that_cannot_be_met_names_the_numbers_of_frames_that_work(name, retention, frames, works):
    method = build_compressor(name, retention=retention)
    with pytest.raises(BudgetError, match=f"this budget works with {re.escape(works)} frames"):
        method(torch.randn(frames, 4, 5, 3))
