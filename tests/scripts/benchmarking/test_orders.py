"""The order of each method's work, as the benchmark states it, holds: counted bytes, operations and calls, not time."""

import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from documents import TEXT
from stgridpool import COMPRESSORS, build_compressor
from stgridpool.contract.cases import invented

MOST_BYTES = {"vidcom2": 18}
"""That a method may read and write for every byte of its input, as if there were no caches; `average` takes 1.3.

It is 6 for all others; `vidcom2` goes through the features three times and writes them in between.
"""
SCORES_DECIDE = ("prumerge", "prumerge_plus")
"""Methods that keep more than 4 times the tokens C of a frame of 4 times the size, if scores are random."""


class Counted(TorchDispatchMode):
    """Count calls of torch, operations of matrix products, and bytes that are read and written; views are neither.

    Products are counted by the formulas of torch's `FlopCounterMode`, which takes several times as long for every call.
    """

    def __init__(self):
        super().__init__()
        self.calls = self.bytes = self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.calls += 1
        if formula := flop_registry.get(func.overloadpacket):
            self.products += formula(*args, **kwargs, out_val=out)
        if not getattr(func, "is_view", False):
            self.bytes += sum(map(num_bytes, (*args, *kwargs.values(), out)))
        return out


def num_bytes(value):
    """Bytes of a tensor or of those in a list; 0 for anything else."""
    if isinstance(value, list | tuple):
        return sum(map(num_bytes, value))
    counts = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return value.numel() * value.element_size() if counts else 0


def counted(name, shape, width, **options):
    """Return the calls, bytes and operations of matrix products of a method, whose patterns are in the cache."""
    method = build_compressor(name, **options)
    tokens = torch.randn(*shape, width, generator=torch.Generator().manual_seed(0))
    evidence = invented(method, shape, width=width)
    method(tokens, evidence=evidence)
    with Counted() as found:
        method(tokens, evidence=evidence)
    return found.calls, found.bytes, found.products


@pytest.fixture(scope="module")
def orders(benchmarking):
    return benchmarking("orders").ORDERS


@pytest.mark.parametrize("name", COMPRESSORS)
def test_work_grows_as_stated(name, orders, benchmarking):
    stated = orders.get(name, benchmarking("orders").Order())
    if stated.compares is None or "log" in stated.formula:
        once, larger, longer = (counted(name, shape, 64)[1:] for shape in ((32, 6, 6), (32, 12, 12), (64, 6, 6)))
        for before, of_larger, of_longer in zip(once, larger, longer, strict=True):
            assert of_larger <= (4.4 if stated.compares is None else 8) * before
            assert of_longer <= 2.2 * before
    else:  # and "it compares pairs" is no excuse: products grow faster than the number of tokens
        options = {"segments": 1, "threshold": -1} if name == "per_segment" else {}  # random frames would all be cut
        shapes = ((4, 4, 4), (4, 8, 8), (8, 4, 4))
        once, larger, longer = (counted(name, shape, 32, **options)[2] for shape in shapes)
        assert larger >= 8 * once or longer >= 3.5 * once
        if stated.compares == "tokens of the video":
            assert 3.5 * once <= longer <= (6 if name == "llava_scissor" else 4.4) * once  # rounds depend on the tokens
        elif stated.compares == "tokens of a frame":
            assert longer <= 2.2 * once
            if name not in SCORES_DECIDE:
                assert larger <= 17 * once


@pytest.mark.parametrize("name", COMPRESSORS)
def test_nothing_loops_over_tokens(name, orders):
    """Four times the tokens in a frame take no more calls, unless the algorithm itself goes step by step."""
    if name in orders and orders[name].loops_over:
        pytest.skip(f"{name} loops over {orders[name].loops_over}")
    once, larger = (counted(name, shape, 16)[0] for shape in ((8, 6, 6), (8, 12, 12)))
    assert larger <= once


def test_methods_that_only_read_features_do_so_a_few_times(orders):
    for name in COMPRESSORS:
        if name not in orders:
            shape, width = (8, 8, 8), 512
            assert counted(name, shape, width)[1] <= MOST_BYTES.get(name, 6) * 4 * 8 * 8 * 8 * width, name


def test_the_documentation_states_the_same_orders(orders):
    stated = {}
    for row in re.findall(
        r"^\| (`.*) \| (.*) \| (.*) \|$", TEXT.split("\n## Speed\n")[1].split("\n## ")[0], re.MULTILINE
    ):
        stated |= dict.fromkeys(re.findall("`(.*?)`", row[0]), (row[2], row[1]))
    assert stated == {name: (order.formula, order.compares) for name, order in orders.items()}
    assert set(orders) <= set(COMPRESSORS)
