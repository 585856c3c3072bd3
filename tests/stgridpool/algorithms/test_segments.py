"""Where a video is cut."""

import pytest
import torch

from stgridpool.algorithms.segments import frame_similarity, segment_lengths, segment_of_frames

LIKENESS = torch.tensor([0.95, 0.5, 0.99, 0.5, 0.97])


@pytest.mark.parametrize(
    ("at_least", "threshold", "lengths"),
    [
        (1, -1, [6]),
        (2, -1, [2, 4]),  # of equals the first
        (3, -1, [2, 2, 2]),
        (4, -1, [1, 1, 2, 2]),
        (1, 0.9, [2, 2, 2]),
        (1, 0.5, [6]),  # below, not at the threshold
        (9, -1, [1] * 6),
    ],
)
def test_cuts(at_least, threshold, lengths):
    found = segment_lengths(LIKENESS, at_least, threshold)
    assert found.tolist() == lengths
    assert segment_of_frames(found).tolist() == [number for number, n in enumerate(lengths) for _ in range(n)]


def test_one_frame_is_one_segment():
    assert segment_lengths(frame_similarity(torch.randn(1, 4)), 8, 0.9).tolist() == [1]


def test_similarity_is_the_cosine():
    vectors = torch.tensor([[1.0, 0], [3, 4], [0, 0]])
    torch.testing.assert_close(frame_similarity(vectors), torch.tensor([0.6, 0.0]))
