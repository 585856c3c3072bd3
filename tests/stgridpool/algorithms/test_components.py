"""Connected components of small graphs, by hand."""

from itertools import pairwise

import torch

from stgridpool.algorithms.components import components, components_of_edges, count_components, merge_components
from stgridpool.algorithms.sets import Sets


def _graph(size, *edges):
    joined = torch.zeros(size, size, dtype=torch.bool)
    for one, other in edges:
        joined[one, other] = joined[other, one] = True
    return joined


def test_members_are_labelled_with_the_first():
    """A pair far apart, a path against the order, a ring; and no edge at all."""
    path = _graph(8, (0, 7), (6, 3), (3, 5), (5, 1), (2, 4))
    joined = torch.stack([path, _graph(8), _graph(8, *((one, (one + 1) % 8) for one in range(8)))])
    assert components(joined).tolist() == [[0, 1, 2, 1, 2, 1, 1, 0], list(range(8)), [0] * 8]


def test_long_paths_in_a_bad_order():
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0)).tolist()
    path = _graph(300, *pairwise(order))
    assert not components(path[None]).any()
    path[order[150], order[151]] = path[order[151], order[150]] = False
    label = components(path[None])[0]
    for half in (order[:151], order[151:]):
        assert label[half].tolist() == [min(half)] * len(half)


def test_components_are_counted_where_there_are_members():
    joined = torch.stack([_graph(4, (0, 1), (1, 2)), _graph(4, (0, 1))])
    is_there = torch.tensor([[True] * 4, [True, True, False, False]])
    assert count_components(joined, is_there) == 3


def test_means_stand_where_most_neighbours_are():
    """Sets of tokens 0, 2, 4, 5 and 1, 3: 2 is a star's centre; of the pair, 1 is the first."""
    sets = Sets.of(torch.tensor([0, 1, 0, 1, 0, 0]), torch.tensor([4, 2]))
    joined = torch.stack([_graph(4, (0, 1), (1, 2)), _graph(4, (0, 1))])
    plan = merge_components(joined, sets)
    assert plan.anchor.tolist() == [1, 2, 5]
    assert plan.apply(torch.arange(6.0)[:, None]).flatten().tolist() == [2.0, 2.0, 5.0]


def test_edges_give_the_components_of_their_graph():
    for seed in range(5):
        first, second = torch.randint(60, (2, 45), generator=torch.Generator().manual_seed(seed))
        joined = _graph(60, *zip(first.tolist(), second.tolist(), strict=True))
        assert torch.equal(components_of_edges(first, second, 60), components(joined[None])[0])
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert not components_of_edges(order[1:], order[:-1], 300).any()
    none = order[:0]
    assert components_of_edges(none, none, 4).tolist() == [0, 1, 2, 3]
