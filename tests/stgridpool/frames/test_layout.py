"""Layouts are made once per size and device, and serve every caller."""

import pytest
import torch

from stgridpool import NSP, PTG, Average, STGridPool

METHODS = [Average(), NSP(), PTG(strides=(1, 2), grid_size=2), STGridPool(strides=(1, 2), grid_size=2)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_equal_sizes_share_their_index_tensors(method):
    first, second = (method.plan(torch.randn(8, 4, 4, 3)) for _ in range(2))
    assert first.sources is second.sources
    assert first.place is second.place
    assert method.plan(torch.randn(8, 4, 5, 3)).sources is not first.sources


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_gradients_after_a_call_in_inference_mode(method):
    shape = (8, 3, 7, 2)  # of no other test: the layout is made in inference mode
    with torch.inference_mode():
        method(torch.randn(shape))
    tokens = torch.randn(shape, requires_grad=True)
    out, plan = method(tokens)
    out.sum().backward()
    assert tokens.grad.sum().item() == pytest.approx(2 * len(plan), rel=1e-5)
