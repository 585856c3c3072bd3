"""No compression."""

import torch

from stgridpool import NoCompression


def test_every_token_in_order():
    tokens = torch.randn(3, 2, 4, 5)
    out, plan = NoCompression()(tokens)
    assert torch.equal(out, tokens.view(24, 5))
    assert torch.equal(plan.apply(tokens), out)
    assert plan.place[5].tolist() == [0, 1, 1]


def test_nothing_is_copied():
    tokens = torch.randn(3, 2, 4, 5)
    assert NoCompression()(tokens).tokens.data_ptr() == tokens.data_ptr()
