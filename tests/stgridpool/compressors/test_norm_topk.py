"""Pruning by norm, by hand."""

import math

import pytest
import torch

from stgridpool import NormTopK, VideoTokens

# Norms of order 1, 2, infinity: 6, 4.47, 4 / 5, 5, 5 / 7, 4.12, 3 / 4, 2.83, 2.
FRAME = torch.tensor([[4.0, -2.0, 0, 0], [0, 0, -5, 0], [3, -2, -2, 0], [2, 2, 0, 0]])


@pytest.mark.parametrize(("order", "kept"), [(1, [0, 2]), (2, [0, 1]), (math.inf, [0, 1]), ("inf", [0, 1])])
def test_the_largest_norms_are_kept(order, kept):
    out, plan = NormTopK(norm_order=order, tokens=2)(FRAME.view(1, 2, 2, 4))
    assert plan.kept().tolist() == kept
    assert torch.equal(out, FRAME[kept])


def test_scopes_and_ties():
    """The second frame is half of the first, and its last two tokens are equal."""
    maps = torch.stack([FRAME, FRAME / 2]).view(2, 2, 2, 4)
    maps[1, 1, 0] = maps[1, 1, 1]
    kept = {scope: NormTopK(tokens=5, scope=scope)(maps).plan.kept().tolist() for scope in ("frame", "video")}
    assert kept == {"frame": [0, 1, 2, 4, 5], "video": [0, 1, 2, 3, 5]}
    assert NormTopK(tokens_per_frame=3)(maps).plan.kept().tolist() == [0, 1, 2, 4, 5, 6]


def test_norms_beyond_half_precision():
    """Squares of 300 and 400 are no float16 numbers; their order decides all the same, also among pruned tokens."""
    features = torch.tensor([[300.0, 0], [400, 0], [0, 350], [1, 1]], dtype=torch.float16)
    tokens = VideoTokens(features, (1, 2, 4), torch.tensor([0, 3, 5, 6]))
    assert NormTopK(tokens=2).plan(tokens, {}).kept().tolist() == [1, 2]


def test_bad_options():
    assert NormTopK() == NormTopK(retention=0.25, norm_order=2.0, scope="frame")
    with pytest.raises(ValueError, match=r"norm_order \(or inf\) must be a number from 0.25 to 64, got 0"):
        NormTopK(norm_order=0)
