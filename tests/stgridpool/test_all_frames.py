"""Budgets after steps in the vision tower: counts by hand."""

import pytest
import torch

from stgridpool import VideoTokens, build_compressor, compress_tokens
from stgridpool.all_frames import AllFrames

STILL = torch.ones(10, 2, 3, 4)
"""Ten equal frames of six tokens."""


def left_by(name, **options):
    """The frames that are left in the tower, and the tokens after all steps before the language model."""
    chain = build_compressor(f"earlytom_frames+{name}", earlytom_frames={"mixing": "mean"}, **options)
    frames = compress_tokens(chain.methods[0], VideoTokens.of(STILL), {})[0].shape[0]
    return frames, len(compress_tokens(chain, VideoTokens.of(STILL), {})[0])


@pytest.mark.parametrize(
    ("budget", "count"),
    [({"retention": 0.2}, 12), ({"tokens": 7}, 7), ({"tokens_per_frame": 1}, 10), ({"retention": 1.0}, None)],
)
@pytest.mark.parametrize("name", ["norm_topk", "tome", "stride"])
def test_it_counts_the_frames_that_entered(name, budget, count):
    """Of 60 tokens; no more than the frames left hold."""
    frames, left = left_by(name, **{name: budget})
    assert frames < 10
    assert left == (6 * frames if count is None else count)


def test_only_the_first_budget_counts_them():
    """A fifth of 60, and a half of that; windows of 2x3 make one token of each frame left in between."""
    assert left_by("norm_topk+stride", norm_topk={"retention": 0.2}, stride={"retention": 0.5})[1] == 6
    frames, left = left_by("average+norm_topk", average={"kernel_size": [2, 3]}, norm_topk={"retention": 0.2})
    assert (frames > 2, left) == (True, 2)  # of ten


def test_what_needs_no_frames_stays_as_it_is():
    """Without a budget, inside the language model, and before which nothing acts in the tower."""
    assert left_by("temporal_average", temporal_average={"group": 2})[1] % 6 == 0
    inside = build_compressor("earlytom_frames+fastv").steps()[-1].compressor
    assert not isinstance(inside, AllFrames)
    assert not any(isinstance(step.compressor, AllFrames) for step in build_compressor("average+tome+fastv").steps())
    assert not any(isinstance(step.compressor, AllFrames) for step in build_compressor("earlytom").steps())
