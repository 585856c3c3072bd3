"""Index tables of quadtrees: groups, shares, names."""

import pytest
import torch

from stgridpool.compressors.sttm.quadtree import halved_sizes, quadtree

CPU = torch.device("cpu")


def test_sizes():
    assert halved_sizes((14, 14)) == ((14, 14), (7, 7), (4, 4), (2, 2), (1, 1))
    assert halved_sizes((5, 3)) == ((5, 3), (3, 2), (2, 1), (1, 1))
    assert halved_sizes((1, 1)) == ((1, 1),)


def extents(tree, level):
    """Of each node of a level its rows and columns, half open, in row-major order of their first cells."""
    width = tree.sizes[-1][1]
    boxes = {}
    for cell, node in enumerate(tree.cell_nodes[level].tolist()):
        y, x = divmod(cell, width)
        y0, x0, y1, x1 = boxes.get(node, (y, x, y, x))
        boxes[node] = (min(y0, y), min(x0, x), max(y1, y), max(x1, x))
    return [(y0, x0, y1 + 1, x1 + 1) for y0, x0, y1, x1 in sorted(boxes.values())]


def test_root_tiles_of_14x14():
    cuts = [0, 2, 6, 10, 14]
    expected = [(cuts[i], cuts[j], cuts[i + 1], cuts[j + 1]) for i in range(4) for j in range(4)]
    assert extents(quadtree((14, 14), 2, False, CPU), 0) == expected


def test_an_odd_and_an_even_side():
    tree = quadtree((3, 4), 1, False, CPU)
    assert tree.sizes == ((2, 2), (3, 4))
    assert extents(tree, 0) == [(0, 0, 1, 2), (0, 2, 1, 4), (1, 0, 3, 2), (1, 2, 3, 4)]
    assert tree.cell_heads[0].tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 4, 4, 6, 6]
    assert tree.cell_shares[0].tolist() == [0.5] * 4 + [0.25] * 8
    assert tree.cell_heads[1].tolist() == list(range(12))


def test_means_of_means_and_means_over_tokens():
    # 7 rows: {0}, {1, 2}, {3, 4}, {5, 6}, then pairs: {0, 1, 2}, {3, 4, 5, 6}.
    plain, weighted = (quadtree((7, 1), 2, by_tokens, CPU).cell_shares[0] for by_tokens in (False, True))
    torch.testing.assert_close(plain, torch.tensor([1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4]))
    torch.testing.assert_close(weighted, torch.tensor([1 / 3] * 3 + [1 / 4] * 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (14, 14), (13, 10), (27, 27), (5, 2)])
def test_shares_sum_to_one_and_tables_agree(size):
    for depth in range(len(halved_sizes(size))):
        for weighted in (False, True):
            tree = quadtree(size, depth, weighted, CPU)
            assert int(tree.is_node.sum()) == sum(h * w for h, w in halved_sizes(size)[: depth + 1])
            for level in range(depth + 1):
                nodes = tree.cell_nodes[level]
                sums = torch.zeros(tree.starts[-1]).index_add(0, nodes, tree.cell_shares[level])
                torch.testing.assert_close(sums[nodes], torch.ones(len(nodes)))
                assert tree.is_node[nodes].all()
                assert torch.equal(tree.ancestors[level][tree.cell_nodes[-1]], nodes)
                first = {node: cell for cell, node in reversed(list(enumerate(nodes.tolist())))}
                assert tree.cell_heads[level].tolist() == [first[node] for node in nodes.tolist()]


def test_tables_are_made_once():
    assert quadtree((14, 14), 2, False, CPU) is quadtree((14, 14), 2, False, CPU)
