"""Rules that turn matches into forests, by hand."""

from dataclasses import replace

import pytest
import torch

from stgridpool.compressors.sttm.merge_forest import MergeForest
from stgridpool.compressors.sttm.temporal_merging import (
    Matches,
    drop_repeated_neighbours,
    follow_most_similar,
    join_as_released,
    join_components,
)


def matches(*pairs):
    earlier, later, similarity = zip(*pairs, strict=True)
    return Matches(torch.tensor(earlier), torch.tensor(later), torch.tensor(similarity, dtype=torch.float32))


NONE = (0, 3, -torch.inf)


def test_thresholds_include_equality():
    above = matches((0, 2, 0.5), (1, 3, 0.25), NONE).above(0.5)
    assert above.similarity.tolist() == [0.5, -torch.inf, -torch.inf]


def test_following_the_most_similar():
    # Node 3 has the matches 0, 1 and 2; of the two best the first one wins. Node 4 has one, 5 has none.
    parents, similarity = follow_most_similar(matches((0, 3, 0.7), (1, 3, 0.9), (2, 3, 0.9), (2, 4, 0.1), NONE), 6)
    assert parents.tolist() == [0, 1, 2, 1, 2, 5]
    assert similarity.tolist() == pytest.approx([-torch.inf] * 3 + [0.9, 0.1, -torch.inf])


def test_components_join_what_is_connected():
    # 3 joins 0 and 1; 2 stays alone; 4 hangs on 3.
    parents, similarity = join_components(matches((0, 3, 0.7), (1, 3, 0.9), (3, 4, 0.6), NONE), 5)
    assert parents.tolist() == [0, 0, 2, 0, 0]
    assert similarity.tolist() == pytest.approx([-torch.inf, 0.9, -torch.inf, 0.9, 0.6])


def test_the_released_rule_stops_early():
    # One later node with three earlier ones takes the first; the others stay, as labels are their own labels.
    pairs = matches((0, 3, 0.9), (1, 3, 0.9), (2, 3, 0.9))
    assert join_as_released(pairs, 4)[0].tolist() == [0, 1, 2, 0]
    assert join_components(pairs, 4)[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("hops", "rounds"), [(2, 1), (3, 2), (6, 2), (7, 3), (14, 3), (15, 4), (30, 4)])
def test_rounds_that_a_chain_takes(hops, rounds):
    chain = matches(*[(index, index + 1, 1.0) for index in range(hops)])
    assert not join_as_released(chain, hops + 1, num_rounds=rounds)[0].any()
    assert rounds == 1 or join_as_released(chain, hops + 1, num_rounds=rounds - 1)[0].any()


@pytest.mark.parametrize("hops", [1, 100, 300, 1000])
@pytest.mark.parametrize("join", [join_components, join_as_released])
def test_long_chains_are_covered(hops, join):
    chain = matches(*[(index, index + 1, 1.0) for index in range(hops)])
    assert not join(chain, hops + 1)[0].any()


@pytest.mark.parametrize("seed", range(20))
def test_components_of_random_graphs(seed):
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(300, (2, 200 + 10 * seed), generator=generator)
    pairs = Matches(*ends.sort(dim=0).values, torch.ones(ends.shape[1]))
    expected = list(range(300))
    for earlier, later in zip(pairs.earlier.tolist(), pairs.later.tolist(), strict=True):
        first, second = sorted((expected[earlier], expected[later]))
        expected = [first if label == second else label for label in expected]
    assert join_components(pairs, 300)[0].tolist() == expected
    assert join_components(pairs, 300, num_rounds=8)[0].tolist() == expected


def test_only_neighbours_in_the_order_of_similarity_are_dropped():
    # Sorted: 0.9 to node 2, 0.8 to 3, 0.7 to 2, 0.6 to 2. Only the last one follows one with the same later node.
    pairs = matches((0, 2, 0.7), (0, 3, 0.8), (1, 2, 0.9), (1, 2, 0.6))
    assert drop_repeated_neighbours(pairs, 2).similarity.tolist() == pytest.approx([0.7, 0.8, 0.9, -torch.inf])


def forest():
    """Cells 0 to 5: nodes {0, 1}, {2, 3, 4} and {5}; the second is merged into the first, the third into the second."""
    heads = torch.tensor([0, 0, 2, 2, 2, 5])
    parents = torch.tensor([0, 0, 0, 2, 2, 2])
    strength = torch.tensor([-torch.inf, 0.5, 0.1, 0.3, 0.3, 0.2])
    return MergeForest(heads, parents, strength, torch.tensor([0.5, 0.5, 0.5, 0.25, 0.25, 1.0]), depth=3)


def test_a_forest_as_a_plan():
    assert forest().num_trees() == 1
    plan = forest().plan(weighted=False)
    assert (plan.anchor.tolist(), plan.num_sources, plan.shape) == ([0], 6, None)
    torch.testing.assert_close(plan.rows.weights, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 12, 1 / 12, 1 / 3]))
    torch.testing.assert_close(forest().plan(weighted=True).rows.weights, torch.full((6,), 1 / 6))


@pytest.mark.parametrize(
    ("count", "roots"),
    [
        (1, [0, 0, 0, 0, 0, 0]),
        (2, [0, 0, 2, 2, 2, 2]),
        (3, [0, 0, 2, 2, 2, 5]),
        (4, [0, 0, 2, 2, 4, 5]),  # of the equal links of 3 and 4 the later one is cut first
        (5, [0, 0, 2, 3, 4, 5]),
        (6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_weakest_links_are_cut(count, roots):
    cut = forest().cut(count)
    assert cut.roots().tolist() == roots
    plan = cut.plan(weighted=False)
    assert len(plan) == count
    torch.testing.assert_close(plan.apply(torch.ones(6, 1)), torch.ones(count, 1))
    if count == 4:
        assert plan.rows.weights.tolist()[2:4] == pytest.approx([2 / 3, 1 / 3])


def test_a_node_that_lost_a_cell_counts_as_much_as_before():
    strength = torch.tensor(
        [-torch.inf, 0.5, 0.9, 0.3, 0.3, 0.8]
    )  # cell 4 leaves its node, which stays with the others
    plan = replace(forest(), strength=strength).cut(2).plan(weighted=False)
    assert plan.rows.sources.tolist() == [0, 1, 2, 3, 5, 4]
    torch.testing.assert_close(plan.rows.weights, torch.tensor([1 / 6, 1 / 6, 2 / 9, 1 / 9, 1 / 3, 1.0]))
