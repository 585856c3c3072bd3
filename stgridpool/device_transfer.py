"""Transfer of tensors inside other objects to a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

_Value = TypeVar("_Value")


def to_device(value: _Value, device: torch.device) -> _Value:
    """Return `value` with every tensor in it on `device`.

    Args:
        value: A tensor, or a tuple, mapping or dataclass that contains tensors at any depth.
        device: The target device.
    """
    moved: _Value = _moved(value, device)
    return moved


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        # Copies to a GPU need not block. Copies to the CPU must: it would read the tensor before the copy has ended.
        return value.to(device, non_blocking=device.type != "cpu")
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value


def reading_is_free(device: torch.device) -> bool:
    """Tell whether reading a tensor waits for nothing: elsewhere, the host must wait for all work queued before it."""
    return device.type == "cpu"
