"""Sets of tokens as one batch, by hand."""

import torch

from stgridpool import VideoTokens
from stgridpool.algorithms.sets import Sets


def test_members_of_each_set():
    sets = Sets.of(torch.tensor([1, 0, 1, 1, 0, 3]), torch.tensor([2, 3, 0, 1]))
    assert sets.is_there.tolist() == [[True, True, False], [True, True, True], [False] * 3, [True, False, False]]
    assert sets.index[sets.is_there].tolist() == [1, 4, 0, 2, 3, 5]
    places = torch.tensor([[1, 0], [2, 0], [0, 0], [0, 0]])
    assert sets.tokens_at(places, torch.tensor([1, 2, 0, 1])).tolist() == [4, 3, 0, 5]


def test_frames_and_videos():
    tokens = VideoTokens(torch.zeros(3, 1), (2, 2, 2), torch.tensor([1, 4, 6]))
    assert Sets.within(tokens, "frame").sizes.tolist() == [1, 2]
    assert Sets.within(tokens, "frame").index[:, 0].tolist() == [0, 1]
    assert Sets.within(tokens, "video").index.tolist() == [[0, 1, 2]]
