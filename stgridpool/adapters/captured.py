"""Outputs of a module while a block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def captured_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list to which every forward of `module` in the block appends its output; the hook is then removed."""
    outputs: list[Tensor] = []

    def note(module: Any, args: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
        outputs.append(output)

    handle = module.register_forward_hook(note)
    try:
        yield outputs
    finally:
        handle.remove()
