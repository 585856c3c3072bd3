"""Checkpoints of all kinds that this package loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.model.llava_checkpoint import Checkpoint, read_llava
from llava.nvila.checkpoint import read_nvila
from llava.nvila.layout import nvila_folder

__all__ = ["Checkpoint", "read_checkpoint"]


def read_checkpoint(folder: Path, customized: Any = None, overwrites: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read configuration and headers of weight files, and compare them.

    Args:
        folder: The checkpoint.
        customized: A configuration, or its JSON file or folder, to use instead of the checkpoint's.
        overwrites: Settings that take precedence over those of the configuration.

    Raises:
        ValueError: If the checkpoint is of another kind, contradicts itself, or lacks files or weights.
    """
    nvila = nvila_folder(folder)
    if nvila is None:
        return read_llava(folder, customized, overwrites)
    if customized is not None:
        raise ValueError(
            "NVILA checkpoints take no customized_config: set overwrite_config, or change their config.json"
        )
    return read_nvila(nvila, overwrites or {})
