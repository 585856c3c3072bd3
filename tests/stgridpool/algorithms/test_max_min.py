"""Farthest-point sampling of numbers on a line, by hand."""

import torch

from stgridpool.algorithms.max_min import cosine_distances, farthest_first


def _on_a_line(numbers):
    distances = (numbers[:, :, None] - numbers[:, None]).abs()
    return distances.masked_fill(torch.eye(numbers.shape[1], dtype=torch.bool), torch.inf)


def test_choices_by_hand():
    """10 is loneliest; then 0, 10 away; then 5, 5 away from both; 1 and 4 are both 1 away, so the first; then 4."""
    distances = _on_a_line(torch.tensor([[1.0, 0.0, 4.0, 5.0, 10.0]]))
    assert farthest_first(distances, torch.ones(1, 5, dtype=torch.bool), 5).tolist() == [[4, 1, 3, 0, 2]]


def test_copies_are_chosen_last_and_once():
    distances = _on_a_line(torch.tensor([[2.0, 2.0, 2.0, 7.0]]))
    assert farthest_first(distances, torch.ones(1, 4, dtype=torch.bool), 4).tolist() == [[3, 0, 1, 2]]


def test_sets_of_different_sizes_choose_at_once():
    """A set of one member has no neighbour; what follows the last member of a set is not looked at."""
    features = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    is_there = torch.tensor([[True, False, False], [True, True, True]])
    distances = cosine_distances(features, is_there)
    assert distances[0, 1:].isinf().all()
    torch.testing.assert_close(distances[1, 0], torch.tensor([torch.inf, 1.0, 1 - 2**-0.5]))
    chosen = farthest_first(distances, is_there, 3)
    assert int(chosen[0, 0]) == 0
    assert chosen[1].tolist() == [0, 1, 2]  # all nearest neighbours are 1 - 1/sqrt(2) away, so the first; then 1


def test_what_was_chosen_may_come_again_before_negative_distances():
    """Two members of positive weight and one of negative weight; the third choice is the first member again."""
    distances = torch.tensor([[0.0, 1, -1], [2, 0, -1], [2, 1, 0]])[None]
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    is_there = torch.ones(1, 3, dtype=torch.bool)
    assert farthest_first(distances, is_there, 3).tolist() == [[0, 1, 2]]
    assert farthest_first(distances, is_there, 3, again=True).tolist() == [[0, 1, 0]]
