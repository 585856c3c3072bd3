"""Loading of checkpoints of native models, with their processors."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from stgridpool.adapters.families import family_of
from stgridpool.adapters.native_checks import (
    BUILDING_ERRORS,
    cannot_build,
    check_end_tokens,
    check_found,
    check_stored,
    read_config,
)
from stgridpool.adapters.native_processor import load_processor
from stgridpool.checkpoint_files import checkpoint_folder, hub_commit, read_json
from stgridpool.finite_weights import check_native_finite

ORIGINAL = ("llava_qwen", "llava_llama")
"""Values of `model_type` in LLaVA-NeXT's format."""


def load_native(
    checkpoint: str, *, device_map: str, dtype: torch.dtype, attn_implementation: str | None
) -> tuple[Any, Any]:
    """Load a model and its processor.

    Configuration, processor and headers of the weight files are compared before any weight is read; afterwards weights
    must be finite.

    Args:
        checkpoint: Folder or hub name.
        device_map: Where to load the model, as transformers takes it.
        dtype: Dtype of the weights.
        attn_implementation: Kind of attention; None for the checkpoint's setting.

    Raises:
        ValueError: If the checkpoint is in LLaVA-NeXT's format or of no supported family, holds LoRA weights, lacks
            weights, which would be random, or holds others; if a setting of the model or the processor is invalid,
            contradicts another or the weights, or needs a library that is missing; or if weights are not finite.
    """
    folder = checkpoint_folder(checkpoint)
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{checkpoint} holds LoRA weights: merge them into their base model first")
    settings = read_json(folder / "config.json")
    if settings.get("model_type") in ORIGINAL or settings.get("mm_vision_tower"):  # released ones may say "llava"
        raise ValueError(
            f"{checkpoint} is in LLaVA-NeXT's format: use --model llava_video, or convert it with "
            "scripts/convert_checkpoint.py"
        )
    family_of(settings.get("model_type"), checkpoint)
    tensors = check_stored(folder)
    processor = load_processor(folder, read_config(folder, settings))
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            device_map=device_map,
            dtype=dtype,
            attn_implementation=attn_implementation,
            ignore_mismatched_sizes=True,  # checked below, with names and shapes
            output_loading_info=True,
            trust_remote_code=False,
        )
    except torch.OutOfMemoryError:
        raise
    except BUILDING_ERRORS as error:
        raise cannot_build(folder, error) from error
    model, info = loaded
    check_found(folder, model, info, tensors)
    check_end_tokens(folder, model)
    check_native_finite(model, tensors)
    model.config._commit_hash = hub_commit(folder)
    return model.eval(), processor


def set_pixels(processor: Any, fewest: int | None, most: int | None) -> None:
    """Set the number of pixels to which a loaded processor resizes videos.

    Args:
        processor: It is changed.
        fewest: Minimum number of pixels; None keeps the setting.
        most: Maximum number of pixels; None keeps the setting.

    Raises:
        ValueError: If the processor does not resize by numbers of pixels.
    """
    given = {name: value for name, value in (("shortest_edge", fewest), ("longest_edge", most)) if value is not None}
    video_processor = processor.video_processor
    if not given:
        return
    size = video_processor.size
    if size.get("shortest_edge") is None or size.get("longest_edge") is None:
        raise ValueError(f"min_pixels and max_pixels: {type(video_processor).__name__} resizes to a fixed size, {size}")
    video_processor.size = {"shortest_edge": size["shortest_edge"], "longest_edge": size["longest_edge"]} | given
