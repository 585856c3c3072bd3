"""Cosines of nested nodes against features that are really made."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stgridpool.compressors.sttm import node_similarity as module
from stgridpool.compressors.sttm.node_similarity import node_similarity
from stgridpool.compressors.sttm.quadtree import quadtree

CPU = torch.device("cpu")


def features_of(tokens, tree):
    """(T, S, D) float64, zeros in empty places."""
    frames, width = tokens.shape[0], tokens.shape[3]
    rows = tokens.reshape(frames, -1, width).double()
    out = torch.zeros(frames, tree.starts[-1], width, dtype=torch.float64)
    for nodes, shares in zip(tree.cell_nodes, tree.cell_shares, strict=True):
        out.index_add_(1, nodes, rows * shares[:, None].double())
    return out


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("size", "depth"), [((14, 14), 2), ((5, 6), 2), ((3, 3), 0), ((1, 9), 3)])
def test_equals_cosines_of_features(size, depth, weighted, num_heads, monkeypatch):
    tree = quadtree(size, depth, weighted, CPU)
    monkeypatch.setitem(module._CHUNK_BYTES, "cpu", 3 * 4 * 16 * len(tree.cells))  # 3 frames at a time
    tokens = torch.randn(7, *size, 16) + 0.5
    before = tokens.clone()
    result = node_similarity(tokens, tree, num_heads)
    assert torch.equal(tokens, before)
    features = features_of(tokens, tree).unflatten(2, (num_heads, -1))
    for level in range(depth + 1):
        nodes = torch.arange(tree.starts[level], tree.starts[-1])[tree.is_node[tree.starts[level] :]]
        ancestors = tree.ancestors[level][nodes]
        for shift, found in zip((-1, 0, 1), result[:3], strict=True):
            frames = torch.arange(max(0, -shift), min(7, 7 - shift))
            expected = F.cosine_similarity(features[frames][:, nodes], features[frames + shift][:, ancestors], dim=-1)
            torch.testing.assert_close(
                found[frames, level][:, nodes], expected.mean(-1).float(), atol=2e-6, rtol=0, msg=str((level, shift))
            )
        if level < depth:
            own = torch.arange(tree.starts[level], tree.starts[level + 1])
            own = own[tree.is_node[own]]
            corner = features[:, tree.starts[level + 1]].unsqueeze(1)
            expected = F.cosine_similarity(features[:, own], corner, dim=-1).mean(-1)
            torch.testing.assert_close(result.corner[:, own], expected.float(), atol=2e-6, rtol=0)


def test_zeros_and_overflow_are_defined():
    tree = quadtree((4, 4), 1, False, CPU)
    assert (node_similarity(torch.zeros(2, 4, 4, 8), tree).same == 0).all()
    overflowing = node_similarity(torch.full((2, 4, 4, 8), 1e30), tree).same
    assert (overflowing[:, 0] == -1).all()
    assert not overflowing.isnan().any()


def test_the_cost_is_linear_in_frames_and_in_tokens():
    def flops(frames, side, depth):
        tree = quadtree((side, side), depth, False, CPU)
        with FlopCounterMode(display=False) as counter:
            node_similarity(torch.randn(frames, side, side, 64), tree)
        return counter.get_total_flops()

    assert flops(16, 8, 2) < 2.2 * flops(8, 8, 2)
    assert flops(8, 16, 2) < 4.2 * flops(8, 8, 2)
    assert flops(8, 32, 4) < 2 * flops(8, 32, 2)  # proportional to the number of levels, not of nodes
