"""Capture of the outputs of a model's modules, without changing any of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def captured(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, Any]]:
    """Keep the last output of each of `modules`, by module, while the block runs."""
    outputs: dict[nn.Module, Any] = {}
    handles = []

    def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[module] = output

    try:
        for module in dict.fromkeys(modules):
            handles.append(module.register_forward_hook(keep))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
