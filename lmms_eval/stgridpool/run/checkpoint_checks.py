"""Checks of a run's checkpoint before anything is loaded, by its folder or by its name on the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from huggingface_hub.constants import HF_HUB_OFFLINE

from llava.model.checkpoint_kind import check_original, is_original
from llava.nvila.layout import PARTS, is_nvila, nvila_folder, part_folder, with_parts
from stgridpool.adapters.names import MODEL_TYPES
from stgridpool.checkpoint_files import (
    local_folder,
    one_line,
    read_json,
    stored_tensors,
)

LLAVA, NATIVE = "llava_video", "video_hf"
QUICK_S, PATIENT_S = 2.0, 30.0
"""Timeouts for answers of the hub, in seconds: for a check, which may go on without, and where nothing else can."""


class SlowHubError(ValueError):
    """The hub has not answered in time, so that nothing is known of a checkpoint."""


def read_checkpoint_settings(name: str, timeout_s: float = PATIENT_S) -> tuple[Path | None, Mapping[str, Any]]:
    """Find a checkpoint and read its settings; weight files must be there and be whole.

    Args:
        name: Folder or hub name.
        timeout_s: Timeout for an answer of the hub, in seconds.

    Returns:
        Its folder, None if all or part of it has to be downloaded, and the settings of its config.json; those of an
        NVILA checkpoint on this disk with the configurations of its parts.

    Raises:
        ValueError: If it is neither on this disk nor on the hub, or lacks a file; the message says what to do.
        SlowHubError: If the hub does not answer in time.
    """
    folder = local_folder(name)
    if folder is None:
        return None, _settings_of_the_hub(name, timeout_s)
    try:
        return _whole_checkpoint(folder)
    except ValueError:
        if Path(name).is_dir() or HF_HUB_OFFLINE:
            raise
        # Part of it is in the hub's cache, and the run downloads the rest.
        return None, _settings_of_the_hub(name, timeout_s)


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
            f"{error}; and model_type {kind!r} is not one of the native models: {', '.join(sorted(MODEL_TYPES))}"
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


def _settings_of_the_hub(name: str, timeout_s: float) -> Mapping[str, Any]:
    """Download the settings of a checkpoint that is not on this disk.

    Raises:
        ValueError: If the hub does not have it, does not give it, or cannot be reached.
        SlowHubError: If the hub does not answer in time.
    """
    where = f"{name} is not a folder in {Path.cwd()} and not in the hub's cache"
    if HF_HUB_OFFLINE or os.sep not in name:
        raise ValueError(f"{where}: name a folder, or download it first: hf download {name}")
    # half a second
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url  # noqa: PLC0415
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError  # noqa: PLC0415

    # Errors of whichever library this version of the hub's client sends requests with.
    library_error = cast("type[Exception]", HfHubHTTPError.__bases__[0])
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=timeout_s)  # the next call alone tries again
        return read_json(Path(hf_hub_download(name, "config.json", etag_timeout=timeout_s)))
    except GatedRepoError as error:
        raise ValueError(f"{where}, and asks for consent: give it at hf.co/{name}, then hf auth login") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{where}, and the hub has none of that name: is it spelled right?") from error
    except (OSError, library_error) as error:
        if _is_slow(error):
            raise SlowHubError(f"{where}, and the hub has not answered in {timeout_s:g} seconds") from error
        raise ValueError(
            f"{where}, and the hub does not give it ({one_line(error)}): name a folder, or download it where "
            f"there is a network: hf download {name}"
        ) from error


def _is_slow(error: BaseException | None) -> bool:
    """Tell whether an error comes from a timeout; libraries wrap Python's own error in theirs."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__ or error.__context__
    return error is not None
