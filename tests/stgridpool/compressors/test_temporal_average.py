"""Averages of runs of frames, by hand."""

import pytest
import torch

from stgridpool import TemporalAverage, VideoTokens, compress_tokens

# Frame t holds t^2 and t^2 + 100 in its two tokens.
FRAMES = torch.arange(7.0).square().view(7, 1, 1, 1) + torch.tensor([0.0, 100.0]).view(1, 1, 2, 1)


@pytest.mark.parametrize(
    ("options", "first", "means"),
    [
        ({"group": 3}, [0, 3, 6], [5 / 3, 50 / 3, 36]),  # 0 1 4 / 9 16 25 / 36
        ({}, [0, 4], [14 / 4, 77 / 3]),  # groups of 4
        ({"group": 1}, list(range(7)), [0, 1, 4, 9, 16, 25, 36]),
        ({"group": 9}, [0], [91 / 7]),
        ({"tokens": 6}, [0, 2, 4], [0.5, 6.5, 77 / 3]),  # 3 of 7 frames begin at 0, 2.33, 4.67
        ({"tokens_per_frame": 2}, list(range(7)), [0, 1, 4, 9, 16, 25, 36]),
        ({"retention": 2 / 7}, [0, 3], [5 / 3, 86 / 4]),  # 4 of 14 tokens
        ({"tokens": 99}, list(range(7)), [0, 1, 4, 9, 16, 25, 36]),
    ],
)
def test_by_hand(options, first, means):
    method = TemporalAverage(**options)
    out, plan = method(FRAMES)
    expected = torch.tensor([[mean, mean + 100] for mean in means], dtype=torch.float32)
    torch.testing.assert_close(out.view(-1, 2), expected)
    assert plan.shape == method.planned_shape((7, 1, 2)) == (len(first), 1, 2)
    assert plan.anchor.tolist() == [2 * frame + column for frame in first for column in (0, 1)]
    assert method.planned_count((7, 1, 2)) == len(plan)


def test_every_place_is_averaged_alone_and_times_follow():
    maps = torch.randn(6, 3, 5, 4)
    left, _ = compress_tokens(TemporalAverage(group=2), VideoTokens.of(maps), {})
    torch.testing.assert_close(left.maps(), maps.unflatten(0, (3, 2)).mean(1))
    timed = VideoTokens(maps.flatten(0, 2), (6, 3, 5), times=torch.arange(6.0))
    assert compress_tokens(TemporalAverage(group=4), timed, {})[0].times.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 7}, "of 2 tokens, and a budget of 7 tokens is 3.50 frames; ask for tokens=6 or tokens=8"),
        ({"tokens": 1}, "a budget of 1 tokens is 0.50 frames; ask for tokens=2"),
        ({"tokens_per_frame": 1}, "a budget of 7 tokens is 3.50 frames"),
    ],
)
def test_frames_stay_whole(options, message):
    with pytest.raises(ValueError, match=f"temporal_average leaves whole frames.*{message}"):
        TemporalAverage(**options)(FRAMES)
    with pytest.raises(ValueError, match=message):
        TemporalAverage(**options).planned_count((7, 1, 2))


def test_bad_options():
    assert TemporalAverage() == TemporalAverage(group=4)
    with pytest.raises(ValueError, match="group must be a whole number from 1 to 100000, got 0"):
        TemporalAverage(group=0)
    with pytest.raises(ValueError, match=r"one way, got \{'tokens': 4, 'group'"):
        TemporalAverage(group=2, tokens=4)
    with pytest.raises(ValueError, match="retention must be a number above 0"):
        TemporalAverage(retention=2)
