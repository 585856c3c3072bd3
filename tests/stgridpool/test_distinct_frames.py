"""Equal frames are encoded once; everything else is as if all had been encoded."""

import pytest
import torch

from stgridpool.distinct_frames import DistinctFrames, repeated

SLIDES = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("order", "first", "which"),
    [
        ([0], (0,), (0,)),
        ([0, 1, 2], (0, 1, 2), (0, 1, 2)),
        ([0, 0, 1, 1, 0, 2], (0, 2, 5), (0, 0, 1, 1, 0, 2)),
        ([2, 2, 2], (0,), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_which_frames_are_equal(order, first, which, dtype):
    frames = DistinctFrames.of(SLIDES[order].to(dtype))
    assert (frames.first, frames.which, frames.num_reused) == (first, which, len(which) - len(first))


def test_a_screen_recording_costs_what_differs():
    """Of 64 frames 10 differ, and some come back later."""
    shown = [7 * frame // 45 for frame in range(64)]
    assert len(set(shown)) == 10
    shown[40], shown[63] = 0, 3
    frames = DistinctFrames.of(torch.rand(10, 3, 2, 2)[shown])
    assert (len(frames.first), frames.num_reused) == (10, 54)


def test_equal_sums_are_not_equal_frames():
    pixels = torch.stack([SLIDES[0], SLIDES[0].flip(-1), SLIDES[0]]).round()
    assert DistinctFrames.of(pixels).which == (0, 1, 0)


def test_frames_that_are_not_a_number_are_encoded():
    pixels = torch.full((2, 3, 4, 4), torch.nan)
    assert DistinctFrames.of(pixels).num_reused == 0


def test_every_frame_gets_the_rows_of_the_frame_that_it_equals():
    frames = DistinctFrames.of(SLIDES[[0, 1, 0, 2]])
    rows = torch.arange(6.0)  # two for each distinct frame
    assert repeated(rows, frames).tolist() == [0, 1, 2, 3, 0, 1, 4, 5]
    assert repeated(SLIDES, frames).shape == (4, 3, 4, 4)
