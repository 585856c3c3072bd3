"""Mean cosines of frames, by hand and in blocks."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool.algorithms import blocks_of_rows
from stgridpool.algorithms.frame_cosines import frame_cosines


def test_by_hand():
    """Two places: equal and at a right angle, opposite and equal; a token of zeros is like nothing."""
    maps = torch.tensor([[[1.0, 0], [0, 2]], [[3, 0], [1, 0]], [[-1, 0], [0, 0]]])
    assert frame_cosines(maps).tolist() == [[1, 0.5, -0.5], [0.5, 1, -0.5], [-0.5, -0.5, 0.5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_give_the_same(monkeypatch, dtype):
    maps = torch.randn(5, 9, 8).to(dtype)
    monkeypatch.setattr(blocks_of_rows, "_ENTRIES_ON_CPU", 80)  # two places at a time
    expected = F.cosine_similarity(maps[:, None].float(), maps[None].float(), dim=-1).mean(-1)
    torch.testing.assert_close(frame_cosines(maps), expected)
