"""Places that stay the same: how many may count as static, and what goes into their tokens."""

import torch

from stgridpool.algorithms.static_places import most_alike_places, segment_means, spread_over_frames

STRENGTH = torch.tensor([[0.9, 0.85, -torch.inf], [0.9, -torch.inf, 0.8]])
LENGTHS = torch.tensor([3, 2])


def test_places_that_change_most_go_first():
    """Places of the first segment save two tokens, of the second one: in order of strength 2, 1, 2, 1."""
    for most, expected in (
        (6, [[1, 1, 0], [1, 0, 1]]),
        (5, [[1, 1, 0], [1, 0, 0]]),
        (4, [[1, 0, 0], [1, 0, 0]]),
        (2, [[1, 0, 0], [0, 0, 0]]),
        (0, [[0, 0, 0], [0, 0, 0]]),
    ):
        assert most_alike_places(STRENGTH, LENGTHS, most).int().tolist() == expected


def test_means_and_entries_by_hand():
    """Five frames of three places; only the second segment, frames 3 and 4, has a peak, on its last place."""
    maps = torch.arange(15.0).view(5, 3, 1)
    segments = torch.tensor([1])
    assert segment_means(maps, LENGTHS, segments)[..., 0].tolist() == [[10.5, 11.5, 12.5]]
    peak, weight = torch.tensor([[2, 0, 2]]), torch.tensor([[0.25, 9, 0.75]])
    row, source, weights = spread_over_frames(peak, weight, STRENGTH > 0, LENGTHS, segments)
    assert source.tolist() == [9, 11, 12, 14]
    assert row.tolist() == [11] * 4
    assert weights.tolist() == [0.125, 0.375, 0.125, 0.375]
