"""Checkpoint: the configuration and the weight files of a checkpoint, compared before any weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava.model.checkpoint_files import StoredTensor, stored_tensors
from llava.model.geometry import check_geometry, holds_tower, trains_tower
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.model.settings import make_config, read_settings
from llava.model.tower_files import check_tower_files


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint whose configuration and files agree.

    Attributes:
        folder: The checkpoint.
        config: Its configuration.
        tensors: The tensors in its weight files, by name.
        source: Source of the configuration, for messages.
    """

    folder: Path
    config: LlavaQwenConfig
    tensors: Mapping[str, StoredTensor]
    source: str

    def outline(self) -> LlavaQwenForCausalLM:
        """Build the model without weights, on the device "meta": it counts and checks, and cannot compute."""
        with torch.device("meta"):
            model: Any = LlavaQwenForCausalLM(self.config)
        outline: LlavaQwenForCausalLM = model.eval()
        return outline


def read_checkpoint(folder: Path, customized: Any = None, overwrites: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read configuration and headers of weight files, and compare them.

    Args:
        folder: The checkpoint.
        customized: A configuration, or its JSON file or folder, to use instead of the checkpoint's.
        overwrites: Settings that take precedence over those of the configuration.

    Raises:
        ValueError: If the checkpoint is of another kind, contradicts itself, or lacks files or weights.
    """
    settings, source = read_settings(folder, customized, overwrites or {})
    tensors = stored_tensors(folder)
    config = make_config(settings, tensors, source)
    if folder.parent.name == "snapshots":  # in the hub's cache, folders are named after commits
        config._commit_hash = folder.name
    if not holds_tower(tensors) and not trains_tower(config):
        check_tower_files(str(config.mm_vision_tower))
    check_geometry(config, tensors, source)
    return Checkpoint(folder, config, tensors, source)
