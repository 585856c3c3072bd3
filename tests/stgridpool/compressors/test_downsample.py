"""Plain resizing to any number of tokens: lattices against torch, other counts by hand."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import Downsample
from stgridpool.frames.exact_resizing import row_lengths


@pytest.mark.parametrize(
    ("frame", "count", "lengths"),
    [
        ((14, 14), 49, [7] * 7),
        ((14, 14), 98, [14] * 7),  # 7x14 before 14x7
        ((14, 14), 196, [14] * 14),
        ((14, 14), 47, [7] * 5 + [6] * 2),  # a prime number
        ((14, 14), 39, [7] * 3 + [6] * 3),  # 3x13 would shrink rows 4.3 times as much as columns
        ((14, 14), 1, [1]),
        ((14, 14), 2, [2]),
        ((4, 16), 16, [8, 8]),
        ((1, 9), 5, [5]),
        ((9, 1), 5, [1] * 5),
        ((2, 3), 5, [3, 2]),
        ((3, 2), 5, [2, 2, 1]),
        ((27, 27), 182, [14] * 13),
    ],
)
def test_lengths_of_rows(frame, count, lengths):
    assert list(row_lengths(frame, count)) == lengths


@pytest.mark.parametrize("frame", [(14, 14), (13, 13), (5, 9), (1, 7), (6, 1)], ids=str)
def test_every_count_has_rows_that_fit(frame):
    for count in range(1, frame[0] * frame[1] + 1):
        lengths = row_lengths(frame, count)
        assert sum(lengths) == count
        assert len(lengths) <= frame[0]
        assert max(lengths) <= frame[1]
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("mode", "name"), [("area", "area"), ("bilinear", "bilinear")])
@pytest.mark.parametrize(
    ("shape", "budget", "size"),
    [
        ((3, 14, 14), {"retention": 0.25}, (7, 7)),
        ((2, 6, 9), {"tokens_per_frame": 6}, (2, 3)),
        ((2, 6, 9), {"tokens": 108}, (6, 9)),
    ],
)
def test_lattices_equal_torch(shape, budget, size, mode, name):
    maps = torch.randn(*shape, 5)
    method = Downsample(mode=mode, **budget)
    out, plan = method(maps)
    align = {"align_corners": False} if name == "bilinear" else {}
    expected = F.interpolate(maps.permute(0, 3, 1, 2), size=size, mode=name, **align).permute(0, 2, 3, 1)
    torch.testing.assert_close(out.view(shape[0], *size, 5), expected)
    assert plan.shape == method.planned_shape(shape) == (shape[0], *size)


def test_rows_of_two_lengths_by_hand():
    """5 of 3x4 tokens: rows of 3 and 2. The upper row is the mean of rows 0 and 1, the lower one that of 1 and 2."""
    frame = torch.tensor([[0.0, 1, 2, 3], [10, 20, 30, 40], [2, 4, 6, 8]]).view(1, 3, 4, 1)
    out, plan = Downsample(tokens=5)(frame)
    # Means of the rows: 5, 10.5, 16, 21.5 and 6, 12, 18, 24. Three of four columns cover 0-1, 1-2, 2-3.
    torch.testing.assert_close(out.flatten(), torch.tensor([7.75, 13.25, 18.75, 9.0, 21.0]))
    assert plan.anchor.tolist() == [0, 1, 2, 4, 6]
    assert plan.shape is None
    assert plan.sizes().tolist() == [4, 4, 4, 4, 4]


def test_frames_share_what_is_left_over():
    """11 tokens of 3 frames: 4, 3 and 4, each as a video of its own would be."""
    maps = torch.randn(3, 4, 4, 2)
    method = Downsample(tokens=11)
    out, plan = method(maps)
    alone = [Downsample(tokens=count)(maps[frame : frame + 1]) for frame, count in enumerate([4, 3, 4])]
    torch.testing.assert_close(out, torch.cat([one.tokens for one in alone]))
    assert plan.anchor.tolist() == [i + 16 * frame for frame, one in enumerate(alone) for i in one.plan.anchor.tolist()]
    assert plan.shape is method.planned_shape((3, 4, 4)) is None
    assert method.planned_count((3, 4, 4)) == 11
    few = Downsample(tokens=2)(maps)
    torch.testing.assert_close(few.tokens, maps[::2].mean((1, 2)))


def test_budgets_are_met_exactly():
    maps = torch.randn(3, 5, 4, 2)
    for count in range(1, 61):
        assert len(Downsample(tokens=count)(maps).plan) == Downsample(tokens=count).planned_count((3, 5, 4)) == count
    assert Downsample(retention=0.1).planned_count((64, 14, 14)) == 1254


def test_bad_options():
    with pytest.raises(ValueError, match=r"mode cannot be 'nearest'.*bilinear"):
        Downsample(mode="nearest")
