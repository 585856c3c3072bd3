"""Checks of a run's checkpoint before anything is loaded, by its folder or by its name on the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_OFFLINE

from llava.model.checkpoint_files import (
    local_folder,
    one_line,
    read_json,
    stored_tensors,
)
from llava.model.checkpoint_kind import check_original, is_original
from llava.nvila.layout import PARTS, is_nvila, nvila_folder, part_folder, with_parts
from stgridpool.adapters.names import MODEL_TYPES

LLAVA, NATIVE = "llava_video", "video_hf"
HUB_TIMEOUT_S = 2.0
"""Time in which the hub must answer whether it has a checkpoint."""


def read_checkpoint_settings(name: str) -> tuple[Path | None, Mapping[str, Any]]:
    """Find a checkpoint and read its settings; weight files must be there and be whole.

    Args:
        name: Folder or hub name.

    Returns:
        Its folder, None if all or part of it has to be downloaded, and the settings of its config.json; those of an
        NVILA checkpoint on this disk with the configurations of its parts.

    Raises:
        ValueError: If it is neither on this disk nor on the hub, or lacks a file; the message says what to do.
    """
    folder = local_folder(name)
    if folder is None:
        return None, _settings_of_the_hub(name)
    try:
        return _whole_checkpoint(folder)
    except ValueError:
        if Path(name).is_dir() or HF_HUB_OFFLINE:
            raise
        return None, _settings_of_the_hub(name)  # part of it is in the hub's cache, and the run downloads the rest


def _whole_checkpoint(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return the folder with the settings, and the settings.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    nvila = nvila_folder(folder)
    settings = read_json((nvila or folder) / "config.json")
    if nvila is None:
        stored_tensors(folder)
        return folder, settings
    for part in PARTS:
        stored_tensors(part_folder(nvila, settings, part))
    return nvila, with_parts(nvila, settings)


def model_for(settings: Mapping[str, Any], name: str) -> str:
    """Return the lmms-eval model that runs a checkpoint: ``llava_video`` or ``video_hf``.

    Args:
        settings: The settings of its config.json.
        name: The checkpoint, for messages.

    Raises:
        ValueError: If no model of this plug-in runs it.
    """
    if is_original(settings) or is_nvila(settings):
        return LLAVA
    kind = settings.get("model_type")
    if kind in MODEL_TYPES:
        return NATIVE
    try:
        check_original(settings, Path(name), f"{name}/config.json")
    except ValueError as error:
        raise ValueError(
            f"{error}; and model_type {kind!r} is none of the native models: {', '.join(sorted(MODEL_TYPES))}"
        ) from error
    return LLAVA


def model_of(arguments: Mapping[str, Any]) -> str:
    """Return the lmms-eval model that runs the checkpoint of ``--model_args``.

    Args:
        arguments: The arguments of the model, as they were given.

    Raises:
        ValueError: If they name no checkpoint, or no model of this plug-in runs it; see `read_checkpoint_settings`.
    """
    checkpoint = arguments.get("pretrained")
    if not isinstance(checkpoint, str) or not checkpoint.strip():
        raise ValueError("--model_args must name a checkpoint: pretrained=FOLDER_OR_NAME")
    _, settings = read_checkpoint_settings(checkpoint)
    return model_for(settings, checkpoint)


def _settings_of_the_hub(name: str) -> Mapping[str, Any]:
    """Download the settings of a checkpoint that is not on this disk.

    Raises:
        ValueError: If the hub does not have it, does not give it, or cannot be reached.
    """
    where = f"{name} is no folder in {Path.cwd()} and not in the hub's cache"
    if HF_HUB_OFFLINE or os.sep not in name:
        raise ValueError(f"{where}: name a folder, or download it first: hf download {name}")
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - half a second
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError  # noqa: PLC0415

    try:
        return read_json(Path(hf_hub_download(name, "config.json", etag_timeout=HUB_TIMEOUT_S)))
    except GatedRepoError as error:
        raise ValueError(f"{where}, and asks for consent: give it at hf.co/{name}, then hf auth login") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{where}, and the hub has none of that name: is it spelled right?") from error
    except OSError as error:
        raise ValueError(
            f"{where}, and the hub does not give it ({one_line(error)}): name a folder, or download it where "
            f"there is a network: hf download {name}"
        ) from error
