"""SlowFast-LLaVA: both pathways against torch's pooling, edges by hand."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import SlowFast, VideoTokens, compress_tokens
from stgridpool.newlines import insert_newlines


@pytest.mark.parametrize(("pool", "torch_pool"), [("average", F.avg_pool2d), ("max", F.max_pool2d)])
def test_the_published_setting(pool, torch_pool):
    """50 frames of 24 x 24: slow frames 0, 5, ..., 45 of 24 x 12, then all frames of 4 x 4; 3680 tokens."""
    maps = torch.randn(50, 24, 24, 3)
    out, plan = SlowFast(slow_pool=pool)(maps)
    channels_first = maps.permute(0, 3, 1, 2)
    slow = torch_pool(channels_first[::5], (1, 2)).permute(0, 2, 3, 1)
    fast = F.adaptive_avg_pool2d(channels_first, 4).permute(0, 2, 3, 1)
    torch.testing.assert_close(out, torch.cat([slow.flatten(0, 2), fast.flatten(0, 2)]))
    assert len(plan) == SlowFast().planned_count((50, 24, 24)) == 10 * 24 * 12 + 50 * 16 == 3680
    assert plan.shape is None
    assert plan.reproduces == (pool == "average")


def test_places():
    """Each token stands on the first one of its run or window."""
    tokens = VideoTokens.of(torch.zeros(5, 2, 4, 1))
    left, plan = compress_tokens(SlowFast(slow_frames=2, slow_window=4, fast_size=(1, 2)), tokens, {})
    assert left.places().tolist() == [
        *[[frame, row, 0] for frame in (0, 2) for row in (0, 1)],
        *[[frame, 0, column] for frame in range(5) for column in (0, 2)],
    ]
    assert plan.sizes().tolist() == [4] * 14


def test_every_frame_of_each_pathway_gets_its_newlines():
    left, _ = compress_tokens(
        SlowFast(slow_frames=2, slow_window=3, fast_size=2), VideoTokens.of(torch.ones(4, 3, 3, 1)), {}
    )
    newline = torch.zeros(1)
    for position, runs in {"frame": [3, 3, 4, 4, 4, 4], "grid": [1] * 6 + [2] * 8}.items():
        ends = (insert_newlines(left, newline, position)[:, 0] == 0).nonzero().flatten()
        assert (ends.diff(prepend=torch.tensor([-1])) - 1).tolist() == runs


@pytest.mark.parametrize("pool", ["average", "max"])
def test_runs_cross_rows_and_what_is_left_over_counts(pool):
    """3 x 3 tokens 0 to 8, all negative, in runs of two: 0 1, 2 3, 4 5, 6 7, 8."""
    maps = torch.arange(9.0).view(1, 3, 3, 1) - 100
    out, _ = SlowFast(slow_pool=pool, fast_size=1)(maps)
    runs = {"average": [0.5, 2.5, 4.5, 6.5, 8.0], "max": [1.0, 3.0, 5.0, 7.0, 8.0]}[pool]
    torch.testing.assert_close(out.flatten() + 100, torch.tensor([*runs, 4.0]))


def test_short_videos_and_small_frames():
    method = SlowFast()
    for shape in [(1, 1, 1), (3, 2, 5), (10, 3, 3), (11, 1, 9)]:
        assert len(method(torch.randn(*shape, 2)).plan) == method.planned_count(shape)
    out, _ = SlowFast(slow_window=1)(torch.tensor([[[[1.0], [2.0]]], [[[3.0], [4.0]]]]))
    assert out.flatten().tolist() == [1, 2, 3, 4, 1, 2, 3, 4]


def test_bad_options():
    with pytest.raises(ValueError, match="slow_frames must be a whole number from 1 to 100000, got 0"):
        SlowFast(slow_frames=0)
    with pytest.raises(ValueError, match=r"slow_pool cannot be 'mean'.*average"):
        SlowFast(slow_pool="mean")
    with pytest.raises(ValueError, match="slow_window must be a whole number"):
        SlowFast(slow_window=(1, 2))
    with pytest.raises(ValueError, match="fast_size must be"):
        SlowFast(fast_size=0)
