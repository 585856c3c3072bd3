"""Triton kernels: what is applied on a GPU in place of torch's operators, where those leave bandwidth unused.

A kernel gives what the plain path gives, up to the order of float32 sums. It is chosen by `can_run` and asks nothing
of the device, so nothing waits. Modules here need triton, and are imported only once `can_run` has said yes.

Kernels are off until `switch_on` is called: on an H200 all tests of their values pass, and three of bandwidth fail
(logs/gpu_tests.json).
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
    """From now on, use kernels wherever they can run, in the whole process.

    Args:
        device: The one that is meant.

    Raises:
        ValueError: if they cannot run there.
    """
    if torch.device(device).type != "cuda" or not torch.cuda.is_available() or not _has_triton():
        raise ValueError(
            f"Triton kernels need an NVIDIA GPU and the package triton, got device {device}: leave them off"
        )
    _STATE["on"] = True


def switch_off() -> None:
    """From now on, use torch's operators only; that is the default."""
    _STATE["on"] = False


def can_run(tokens: Tensor, *factors: Tensor) -> bool:
    """Whether kernels take over for `tokens` and what they are multiplied with.

    Once switched on, they do on a GPU with triton installed, for bf16, fp16 and float32, where no gradient is wanted:
    they have none.
    """
    if not _STATE["on"]:
        return False
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (tokens, *factors))
    return tokens.is_cuda and tokens.dtype in DTYPES and not wants_gradient and _has_triton()


def window_fits(window_tokens: int, width: int) -> bool:
    """Whether the registers of one program hold a window of so many tokens, each side rounded up to a power of two."""
    return 1 << (window_tokens - 1).bit_length() + (width - 1).bit_length() <= _MAX_TILE


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
