"""The files of a vision tower that a checkpoint names: a folder, or a repository on the hub."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from stgridpool.checkpoint_files import check_no_pointer, is_hub_name, one_line, read_index, stored_tensors

OPEN_CLIP_PREFIX = "open_clip_hub:"


def check_tower_files(name: str) -> None:
    """Check the weight files of a tower in a folder before they are needed.

    A tower may be a `pytorch_model.bin`, since OpenAI's CLIP is not published in another format; it is read with
    `weights_only`, so that it cannot run code.

    Raises:
        ValueError: If the folder does not exist, a file is missing, damaged, truncated or a Git LFS pointer, the index
            names files outside of the folder, or the weights are LoRA's.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not is_hub_name(name) and not name.startswith(OPEN_CLIP_PREFIX):
            raise ValueError(missing_tower(name))
        return
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder} holds LoRA weights of a vision tower: merge them into the tower first")
    if any(folder.glob("model.safetensors*")) or not any(folder.glob("*.bin")):
        stored_tensors(folder)
    else:
        for path in folder.glob("*.bin"):
            check_no_pointer(path)
        for index in folder.glob("*.bin.index.json"):
            read_index(index, ".bin")


def missing_tower(name: str) -> str:
    """Return the error message for a vision tower whose folder does not exist."""
    return (
        f"mm_vision_tower={name!r} of config.json names a folder that is not there: put the tower into it, or set "
        "mm_vision_tower to where it lies or to its hub name, such as google/siglip-so400m-patch14-384"
    )


def pretrained_weights(
    model_class: type[PreTrainedModel], name: str, encoder: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """Load the weights of the tower `name`, a local folder or a hub name: all that `encoder` needs, in its dtype.

    Raises:
        ValueError: If weights cannot be read, some are missing, or they contradict the tower's configuration.
    """
    check_tower_files(name)
    return pretrained(model_class, name, "mm_vision_tower", encoder.dtype, config=encoder.config).state_dict()


def pretrained(
    model_class: type[PreTrainedModel], name: str, option: str, dtype: torch.dtype, **settings: Any
) -> PreTrainedModel:
    """Load a model of `model_class` from `name`, a local folder or a hub name, with none of its weights random.

    Args:
        model_class: Class of the part of the stored model to build.
        name: The folder or hub name.
        option: Option or setting that names it, for messages.
        dtype: Dtype of the weights.
        **settings: Arguments of ``from_pretrained``.

    Raises:
        ValueError: If weights cannot be read, some are missing, or they contradict the stored configuration.
    """
    try:
        loaded: Any = model_class.from_pretrained(
            name,
            dtype=dtype,
            ignore_mismatched_sizes=True,  # checked below, with names and shapes
            output_loading_info=True,
            **settings,
        )
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"the weights of {option}={name!r} cannot be read: {one_line(error)}") from error
    model: PreTrainedModel = loaded[0]
    info: dict[str, Any] = loaded[1]
    if info["missing_keys"]:
        raise ValueError(f"{name} lacks weights of the vision tower: {sorted(info['missing_keys'])[:5]}")
    if info["mismatched_keys"]:
        key, stored, wanted = sorted(info["mismatched_keys"])[0]
        raise ValueError(
            f"the weights of {name} contradict its configuration: {key} would be {tuple(wanted)}, and the file "
            f"holds {tuple(stored)}"
        )
    return model
