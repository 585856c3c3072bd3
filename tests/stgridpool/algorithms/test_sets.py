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


def test_frames_that_are_full():
    sets = Sets.within(VideoTokens(torch.zeros(6, 1), (3, 1, 2)), "frame")
    assert sets.index.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert sets.is_there.all()
    assert sets.sizes.tolist() == [2, 2, 2]


def test_sums_over_members_come_in_the_order_of_their_places():
    """Tokens 0 and 2 are one set, 1 the other; of the second set's sums there is only the first."""
    sets = Sets.of(torch.tensor([0, 1, 0]), torch.tensor([2, 1]))
    weights = torch.tensor([[[0.5, 2.0], [1.0, 0.0]], [[3.0, 9.0], [9.0, 9.0]]])
    weights[1, 0, 1] = 0  # there is no such member
    plan = sets.mixed(weights, torch.tensor([[1, 0], [0, 0]]), torch.tensor([[True, True], [True, False]]))
    assert plan.anchor.tolist() == [0, 1, 2]
    assert plan.apply(torch.tensor([[1.0], [10.0], [100.0]])).flatten().tolist() == [1.0, 30.0, 200.5]
