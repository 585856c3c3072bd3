"""Cosines, pair by pair, and the token before on the same place."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import VideoTokens
from stgridpool.algorithms.temporal_similarity import (
    chains,
    cosines_of_neighbours,
    cosines_to_earlier,
    cosines_to_previous,
)


def test_cosines_with_frames_further_back():
    """Frame 2 with frame 0, frame 3 with frame 1; none for the first two, nor where no frame is that far back."""
    frames = torch.tensor([[1.0, 0], [3, 4], [4, 3], [4, -3]])[:, None]
    expected = torch.tensor([-torch.inf, -torch.inf, 0.8, 0])
    torch.testing.assert_close(cosines_to_earlier(frames, torch.tensor([0, 0, 2, 2]))[:, 0], expected)
    assert cosines_to_earlier(frames[:1], torch.tensor([2])).tolist() == [[-torch.inf]]


def test_the_token_before_on_the_same_place():
    """Places of a row of two: frames 0, 1 and 3 on the first, 1 and 2 on the second."""
    cell = torch.tensor([0, 2, 3, 5, 6])
    features = torch.tensor([[1.0, 0], [3, 4], [0, 1], [1, 0], [4, 3]])
    tokens = VideoTokens(features, (4, 1, 2), cell)
    order, is_first = chains(tokens)
    assert order.tolist() == [0, 1, 4, 2, 3]
    assert is_first.tolist() == [True, False, False, True, False]
    torch.testing.assert_close(cosines_to_previous(tokens), torch.tensor([-torch.inf, 0.6, -torch.inf, 0, 0.96]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 5, 70000), (2, 3, 70000), (30, 7, 9000), (20, 300, 64)])
def test_frames_and_places_of_many_blocks(shape, dtype):
    """Frames, places, or both make several blocks, of which the last are smaller."""
    frames = torch.randn(shape, dtype=dtype)
    expected = F.cosine_similarity(frames[1:].double(), frames[:-1].double(), dim=-1).float()
    torch.testing.assert_close(cosines_of_neighbours(frames), expected, atol=1e-5, rtol=0)
    tokens = VideoTokens(frames.flatten(0, 1), (shape[0], 1, shape[1]), torch.arange(shape[0] * shape[1]))
    torch.testing.assert_close(cosines_to_previous(tokens)[shape[1] :], expected.flatten(), atol=1e-5, rtol=0)


def test_a_whole_lattice_and_its_cells_give_the_same():
    maps = torch.randn(5, 3, 4, 6)
    whole = VideoTokens.of(maps)
    named = VideoTokens(whole.features, whole.shape, torch.arange(60))
    torch.testing.assert_close(cosines_to_previous(whole), cosines_to_previous(named))
    assert (cosines_to_previous(VideoTokens.of(maps[:1])) == -torch.inf).all()
