"""Checks of a run before anything is loaded: every error that can be known names its cause and repair in one line."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HUB_OFFLINE

from llava.model.checkpoint_files import checkpoint_folder, is_hub_name
from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.health.task_data import missing_table
from lmms_eval_stgridpool.health.weights import local_folder
from lmms_eval_stgridpool.run.context_length import length_warning
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.run.offline_tasks import task_manager, with_tables


def check_run(task: str, model_args: str, processes: int | None = None, include: Sequence[Path] = ()) -> str | None:
    """Check what a run is asked to do.

    Args:
        task: Name of the task or path of a table, or several separated by commas.
        model_args: Arguments of llava_video, as for lmms-eval.
        processes: Number of processes; None for the default.
        include: Folders of further task files.

    Returns:
        A warning about videos that are too long for the checkpoint's context, or None.

    Raises:
        ValueError: If an argument, the compressor, the device, the checkpoint, the task or its table cannot work; the
            message says why, and what would.
        TypeError: If a path is a number.
        FileNotFoundError: If there is no such table.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"the number of processes must be at least 1, got {processes}")
    arguments = LlavaArguments.parse(parse_model_args(model_args))
    check_device(arguments.device or "")
    names, tables = with_tables(task)
    manager = task_manager(names, [*tables, *include])
    for name in names:
        if (missing := missing_table(name, manager)) is not None:
            raise ValueError(f"{missing.text}: {missing.repair}")
    folder = folder_on_disk(arguments.pretrained)
    return None if folder is None else length_warning(Planner.of(str(folder), arguments.overwrites()), arguments)


def check_device(device: str) -> None:
    """Check that a device, such as "cuda:0", is there; "" is any.

    Raises:
        ValueError: If it is not.
    """
    count = torch.cuda.device_count()
    if device.startswith("cuda") and (torch.device(device).index or 0) >= count:
        raise ValueError(f"there is no device {device}: torch sees {count} GPUs; leave device out, or set device=cpu")


def folder_on_disk(checkpoint: str) -> Path | None:
    """Return the folder of a checkpoint; None if it has to be downloaded first.

    Raises:
        ValueError: If it is a folder that does not exist, or must be downloaded and the network is off.
    """
    if Path(checkpoint).exists() or not is_hub_name(checkpoint):
        return checkpoint_folder(checkpoint)
    found = local_folder(checkpoint)
    if found is None and (HF_HUB_OFFLINE or os.sep not in checkpoint):
        raise ValueError(
            f"{checkpoint} is no folder in {Path.cwd()} and not in the hub's cache: name a folder, or download it "
            f"first: hf download {checkpoint}"
        )
    return found
