"""No compression."""

import pytest
import torch

from stgridpool import NoCompression, Plan, VideoTokens, build_compressor


def test_every_token_in_order():
    tokens = torch.randn(3, 2, 4, 5)
    out, plan = NoCompression()(tokens)
    assert torch.equal(out, tokens.view(24, 5))
    assert torch.equal(plan.apply(tokens), out)
    assert plan.shape == (3, 2, 4)
    assert plan.anchor.tolist() == list(range(24))


def test_tokens_that_fill_no_lattice():
    tokens = VideoTokens.of(torch.randn(3, 2, 4, 5)).through(Plan.keep(torch.tensor([3, 9, 20]), 24))
    plan = NoCompression().plan(tokens, {})
    assert (plan.shape, plan.kept().tolist()) == (None, [0, 1, 2])
    assert NoCompression().planned_count((3, 2, 4), 3) == 3


def test_nothing_is_copied():
    tokens = torch.randn(3, 2, 4, 5)
    assert NoCompression()(tokens).tokens.data_ptr() == tokens.data_ptr()


def test_it_leaves_the_own_pooling_if_asked_to():
    assert [step.place for step in build_compressor("none").steps()] == ["patches"]
    assert [step.place for step in build_compressor("none", own_pooling=True).steps()] == ["tokens"]
    with pytest.raises(ValueError, match="own_pooling must be True or False"):
        build_compressor("none", own_pooling=1)
