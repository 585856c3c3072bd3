"""Check that the weights of a loaded model are finite, since a model with NaN or infinity gives nonsense answers."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from llava.model.tensor_shapes import plain_name
from stgridpool.checkpoint_files import StoredTensor, checkpoint_folder, stored_tensors
from stgridpool.finite import all_finite

_CHECKED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@torch.no_grad()
def check_finite(model: nn.Module, tensors: Mapping[str, StoredTensor]) -> None:
    """Check that no weight of a model is NaN or infinite.

    Each weight is reduced to its smallest and largest value on its device, and we wait for every device once. Weights
    that are not floating-point numbers on a device (offloaded or quantised ones) are read from their file instead, one
    tensor at a time.

    Args:
        model: The model, before any of its weights are truncated.
        tensors: The tensors in the checkpoint's files.

    Raises:
        ValueError: If weights are not finite; the message names their files, or says that they are finite there but
            overflow in the model's dtype.
    """
    weights = {plain_name(name): weight for name, weight in model.state_dict().items()}
    held = {name: one for name, one in weights.items() if one.dtype in _CHECKED_DTYPES and not one.is_meta}
    stored = {plain_name(name): (name, tensor) for name, tensor in tensors.items()}
    unseen = [name for name in weights if name not in held]
    bad = _not_finite(held)
    bad_in_file = {name for name in (*unseen, *bad) if name in stored and not _is_finite_in_file(*stored[name])}
    if bad_in_file:
        raise ValueError(_in_files({stored[name][0]: stored[name][1].path for name in sorted(bad_in_file)}))
    if bad:
        _raise_for_others(bad, held, set(stored))


@torch.no_grad()
def check_native_finite(model: nn.Module, checkpoint: str) -> None:
    """Check that no weight of a native model is NaN or infinite; its files may name weights otherwise than it does.

    Args:
        model: The model.
        checkpoint: Folder or hub name that it was loaded from.

    Raises:
        ValueError: If weights are not finite; the message names their files, or says that they overflow.
    """
    held = {name: one for name, one in model.state_dict().items() if one.dtype in _CHECKED_DTYPES and not one.is_meta}
    bad = _not_finite(held)
    if bad:
        in_files, _ = read_weights(stored_tensors(checkpoint_folder(checkpoint)), lambda _: None)
        if in_files is not None:
            raise ValueError(in_files)
        _raise_for_others(bad, held, set(bad))


def _not_finite(weights: Mapping[str, torch.Tensor]) -> list[str]:
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
    """Read all weights from their files, one at a time.

    Args:
        tensors: The tensors in the checkpoint's files.
        advance: Called after each tensor with its number of bytes.

    Returns:
        Which weights are NaN or infinite, and which overflow in float16, with the repair; None for none.
    """
    bad: dict[str, Path] = {}
    overflowing: list[str] = []
    for name, tensor in tensors.items():
        with safe_open(tensor.path, framework="pt") as file:
            values = file.get_tensor(tensor.name)
        if values.dtype in _CHECKED_DTYPES and not all_finite(values):
            bad[name] = tensor.path
        elif values.dtype in _CHECKED_DTYPES and not all_finite(values.half()):
            overflowing.append(name)
        advance(values.nbytes)
    overflow = f"weights overflow in float16 ({_some(overflowing)}): run with torch_dtype=bfloat16 or float32"
    return _in_files(bad) if bad else None, overflow if overflowing else None


def _is_finite_in_file(name: str, tensor: StoredTensor) -> bool:
    with safe_open(tensor.path, framework="pt") as file:
        values = file.get_tensor(tensor.name)
    return values.dtype not in _CHECKED_DTYPES or not _not_finite({name: values})


def _in_files(paths: Mapping[str, Path]) -> str:
    parts = []
    for path in dict.fromkeys(paths.values()):
        names = [name for name, place in paths.items() if place == path]
        parts.append(f"{path} ({_some(names)})")
    return f"weights are NaN or infinite in {'; '.join(parts)}: copy or download the checkpoint again"


def _raise_for_others(bad: list[str], held: Mapping[str, torch.Tensor], stored: set[str]) -> None:
    overflowing = [name for name in bad if name in stored]
    if overflowing:
        dtype = str(held[overflowing[0]].dtype).removeprefix("torch.")
        raise ValueError(
            f"weights are finite in the checkpoint and overflow in {dtype} ({_some(overflowing)}): load with "
            "torch_dtype bfloat16 or float32"
        )
    raise ValueError(f"weights are NaN or infinite in the vision tower that mm_vision_tower names ({_some(bad)})")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
