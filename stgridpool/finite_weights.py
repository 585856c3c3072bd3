"""Check that weights are finite, since a model with NaN or infinity gives nonsense answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from stgridpool.checkpoint_files import StoredTensor
from stgridpool.finite import all_finite

CHECKED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes that can hold NaN or infinity, and that torch can reduce on any device."""


@torch.no_grad()
def check_native_finite(model: nn.Module, tensors: Mapping[str, StoredTensor]) -> None:
    """Check that no weight of a native model is NaN or infinite; its files may name weights otherwise than it does.

    Each weight is reduced to its smallest and largest value on its device, and we wait for every device once. Files
    are read only to name what was found, or if weights are offloaded or quantised.

    Args:
        model: The model.
        tensors: The tensors in the checkpoint's files.

    Raises:
        ValueError: If weights are not finite; the message names their files, or says that they overflow.
    """
    held = held_weights(model.state_dict())
    bad = not_finite(held)
    if not bad and all(name in held for name, _ in model.named_parameters()):
        return
    in_files, _ = read_weights(tensors, lambda _: None)
    if in_files is not None:
        raise ValueError(in_files)
    if bad:
        raise overflow_error(bad, held[bad[0]].dtype)


def held_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Choose the weights that are floating-point numbers on a device, neither offloaded nor quantised."""
    return {name: one for name, one in weights.items() if one.dtype in CHECKED_DTYPES and not one.is_meta}


def not_finite(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Name the tensors that contain NaN or infinity; waits once for each device."""
    by_device: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    for name, weight in weights.items():
        by_device.setdefault(weight.device, []).append((name, all_finite(weight)))
    bad: list[str] = []
    for checks in by_device.values():
        flags = torch.stack([flag for _, flag in checks]).tolist()
        bad += [name for (name, _), is_finite in zip(checks, flags, strict=True) if not is_finite]
    return bad


def read_weights(tensors: Mapping[str, StoredTensor], advance: Callable[[int], None]) -> tuple[str | None, str | None]:
    """Read the weights that can be NaN or infinite from their files, one at a time; each file is opened once.

    Args:
        tensors: The tensors in the checkpoint's files, file by file.
        advance: Called after each tensor that was read with its number of bytes.

    Returns:
        Which weights are NaN or infinite, and which overflow in float16, with the repair; None for none.
    """
    bad: dict[str, Path] = {}
    overflowing: list[str] = []
    floats = ((name, tensor) for name, tensor in tensors.items() if tensor.is_float)
    for path, entries in groupby(floats, lambda entry: entry[1].path):
        with safe_open(path, framework="pt") as file:
            for name, tensor in entries:
                values = file.get_tensor(tensor.name)
                if not all_finite(values):
                    bad[name] = path
                elif not all_finite(values.half()):
                    overflowing.append(name)
                advance(values.nbytes)
    overflow = f"weights overflow in float16 ({some_of(overflowing)}): run with torch_dtype=bfloat16 or float32"
    return files_problem(bad) if bad else None, overflow if overflowing else None


def files_problem(paths: Mapping[str, Path]) -> str:
    """Say which files hold the weights that are not finite, with the repair.

    Args:
        paths: File by weight, at least one.
    """
    parts = []
    for path in dict.fromkeys(paths.values()):
        names = [name for name, place in paths.items() if place == path]
        parts.append(f"{path} ({some_of(names)})")
    return f"weights are NaN or infinite in {'; '.join(parts)}: copy or download the checkpoint again"


def overflow_error(names: Iterable[str], dtype: torch.dtype) -> ValueError:
    """Return the error for weights that are finite in their files, and not in the dtype of the model."""
    return ValueError(
        f"weights are finite in the checkpoint and overflow in {str(dtype).removeprefix('torch.')} "
        f"({some_of(names)}): load with torch_dtype bfloat16 or float32"
    )


def some_of(names: Iterable[str]) -> str:
    """List the first three names, and say how many more there are."""
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
