"""Triton kernels that replace torch's operators on a GPU where those leave bandwidth unused.

A kernel computes the same values as torch's operators, up to the order of float32 sums. `can_run` chooses it without
waiting for the device. The modules here need triton, and are imported only after `can_run` has returned True.

Kernels are off until `switch_on` is called: all their tests pass on an H200 (logs/gpu_tests.json), but they have run on
no other card.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_MAX_TILE = 32768  # numbers, 64 for each of 512 threads
_STATE = {"on": False}


def switch_on(device: torch.device | str = "cuda") -> None:
    """Use kernels wherever they can run, from now on and in the whole process.

    Args:
        device: Device of the model.

    Raises:
        ValueError: If kernels cannot run there.
    """
    if torch.device(device).type != "cuda" or not torch.cuda.is_available() or not _has_triton():
        raise ValueError(
            f"Triton kernels need an NVIDIA GPU and the package triton, got device {device}: leave them off"
        )
    _STATE["on"] = True


def switch_off() -> None:
    """Use torch's operators only, from now on and in the whole process; that is the default."""
    _STATE["on"] = False


def can_run(tokens: Tensor, *factors: Tensor) -> bool:
    """Tell whether to use kernels for `tokens` and the `factors` that multiply them.

    Once switched on, kernels run on a GPU with triton, for bf16, fp16 and float32, unless a gradient is needed: they
    have no backward pass.
    """
    if not _STATE["on"]:
        return False
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (tokens, *factors))
    return tokens.is_cuda and tokens.dtype in DTYPES and not wants_gradient and _has_triton()


def window_fits(window_tokens: int, width: int) -> bool:
    """Tell whether a window fits into the registers of one program, with both sides rounded up to powers of two."""
    return 1 << (window_tokens - 1).bit_length() + (width - 1).bit_length() <= _MAX_TILE


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
