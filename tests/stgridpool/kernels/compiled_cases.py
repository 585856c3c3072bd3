"""Compiles the kernels for an H200 where there is none: what only the compiler sees, the interpreter does not.

Run by `test_kernels.py` in a process of its own, with the kernels chosen for CPU tensors and compiled, not launched.
"""

import math
from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from stgridpool import NSP, Average, STGridPool, VideoTokens, kernels

# Orders 2, infinity and 0.5 of the norm, windows of 4, 9 and 1 tokens, with and without mosaics.
METHODS = [NSP(), STGridPool(), NSP(3, norm_order=math.inf), NSP(kernel_size=1, norm_order=0.5)]


class Hopper:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The PTX of the kernels asked for so far."""
    sources: list[str] = []
    run = JITFunction.run

    def compile_only(self, *arguments: Any, warmup: bool, **named: Any) -> None:
        sources.append(run(self, *arguments, warmup=True, **named).asm["ptx"])

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(kernels, "can_run", lambda *tensors: True)
    driver.set_active(Hopper())
    return sources


@pytest.mark.parametrize(
    ("method", "shape"),
    [(method, (8, 3, 4, 96)) for method in METHODS] + [(STGridPool(), (8, 1, 1, 1))],
    ids=str,
)
def test_every_launch_compiles(method, shape, compiled):
    tokens = torch.zeros(shape, dtype=torch.bfloat16)
    method(tokens)
    method.plan(VideoTokens.of(tokens), {}).apply(tokens)
    assert len(compiled) >= 2


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
def test_tokens_are_loaded_and_stored_by_16_bytes(dtype, compiled):
    tokens = torch.zeros((8, 4, 4, 3584), dtype=dtype)
    STGridPool()(tokens)
    Average()(tokens)
    stores_tokens = ["entry _gather(" in source for source in compiled]
    assert any(stores_tokens)
    assert not all(stores_tokens)  # the other kernel stores weights
    for source, stores in zip(compiled, stores_tokens, strict=True):
        assert "ld.global.v4.b32" in source
        assert not stores or "st.global.v4.b32" in source
