"""Patterns are made once per size and device, and serve every caller."""

import pytest
import torch

from stgridpool import NSP, PTG, Average, Bilinear, STGridPool
from stgridpool.frames.layout import resident
from stgridpool.frames.mosaics import Level, mosaic, rewrite
from stgridpool.frames.patterns import every_token, pooling_windows, resizing

METHODS = [Average(), Bilinear(), NSP(), PTG(strides=(1, 2), grid_size=2), STGridPool(strides=(1, 2), grid_size=2)]
LEVELS = (Level(2, 1), Level(2, 2))
MAKERS = [
    lambda side: pooling_windows((side, 4), (2, 2), (2, 2), (0, 0), False),
    lambda side: resizing((side, 4), (2, 2), "linear"),
    lambda side: every_token((side, 4)),
    lambda side: mosaic((side, 4), 2),
    lambda side: rewrite((8, side, 4), LEVELS),
]
by_name = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


@pytest.mark.parametrize("make", MAKERS)
def test_what_depends_on_sizes_alone_is_made_once_per_size_and_device(make):
    device = torch.device("meta")
    assert make(6) is make(6)
    assert resident(make(6), device) is resident(make(6), device)
    assert make(6) is not make(5)
    assert resident(make(6), device) is not resident(make(6), torch.device("cpu"))


@by_name
def test_gradients_after_a_call_in_inference_mode(method):
    shape = (8, 3, 7, 2)  # of no other test: the pattern is made in inference mode
    with torch.inference_mode():
        method(torch.randn(shape))
    tokens = torch.randn(shape, requires_grad=True)
    out, plan = method(tokens)
    out.sum().backward()
    assert tokens.grad.sum().item() == pytest.approx(2 * len(plan), rel=1e-5)


@by_name
def test_many_lengths_and_sizes_in_any_order(method):
    """Each has its own plan, whatever was planned before it."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (40, 1), generator=generator)
    shapes = torch.cat([lengths, torch.tensor([[4, 4], [5, 3]]).repeat(20, 1)], dim=1)
    for shape in [*shapes.tolist(), *shapes.tolist()]:
        ones = torch.ones(*shape, 1)
        out, plan = method(ones)
        assert plan.shape == method.planned_shape(tuple(shape))
        torch.testing.assert_close(out, torch.ones(len(plan), 1))
