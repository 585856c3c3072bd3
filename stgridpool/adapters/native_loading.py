"""Loading of checkpoints of native models, with their processors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

ORIGINAL = ("llava_qwen", "llava_llama")
"""Values of `model_type` in LLaVA-NeXT's format."""
_NUMBERED = re.compile(r"(?P<layers>[A-Za-z_.]+)\.(?P<number>\d+)\.")


def load_native(
    checkpoint: str, *, device_map: str, dtype: torch.dtype, attn_implementation: str | None
) -> tuple[Any, Any]:
    """Load a model and its processor.

    Args:
        checkpoint: Folder or hub name.
        device_map: Where to load the model, as transformers takes it.
        dtype: Dtype of the weights.
        attn_implementation: Kind of attention; None for the checkpoint's setting.

    Raises:
        ValueError: If the checkpoint is in LLaVA-NeXT's format, holds LoRA weights, lacks weights, which would be
            random, or its configuration contradicts them.
    """
    config = Path(checkpoint) / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if settings.get("model_type") in ORIGINAL or settings.get("mm_vision_tower"):  # released ones may say "llava"
        raise ValueError(
            f"{checkpoint} is in LLaVA-NeXT's format: use --model llava_video, or convert it with "
            "scripts/convert_checkpoint.py"
        )
    if Path(checkpoint, "adapter_config.json").exists():
        raise ValueError(f"{checkpoint} holds LoRA weights: merge them into their base model first")
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            checkpoint,
            device_map=device_map,
            dtype=dtype,
            attn_implementation=attn_implementation,
            ignore_mismatched_sizes=True,  # checked below, with names and shapes
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, StrictDataclassError, TypeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"no model can be built from {checkpoint} with its config.json: {reason[:300]}") from error
    model, info = loaded
    _check_weights(checkpoint, model, info)
    _check_numbers(checkpoint, model.config.to_dict())
    _check_feature_layers(checkpoint, model.config)
    return model.eval(), load_processor(checkpoint)


def _check_weights(checkpoint: str, model: nn.Module, info: Mapping[str, Any]) -> None:
    """Check what transformers says of the weights that it has loaded.

    Raises:
        ValueError: If weights are missing or contradict the configuration. Other weights that the model does not have
            are nobody's fault, unless they belong to layers beyond its own.
    """
    if info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"])[:5])
        raise ValueError(f"{checkpoint} lacks weights of the model, which would be random: {lacking}")
    for name, stored, wanted in sorted(info.get("mismatched_keys", ()))[:1]:
        raise ValueError(
            f"the weights of {checkpoint} contradict its config.json: {name} would be {tuple(wanted)}, and the file "
            f"holds {tuple(stored)}"
        )
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    for name in sorted(info.get("unexpected_keys", ())):
        for found in _NUMBERED.finditer(name):
            count = next((count for known, count in lists.items() if known.endswith(found["layers"])), None)
            if count is not None and int(found["number"]) >= count:
                raise ValueError(
                    f"the weights of {checkpoint} contradict its config.json, which has {count} layers in "
                    f"{found['layers']}: the files also hold {name}"
                )


def _check_numbers(checkpoint: str, settings: Any, name: str = "") -> None:
    """Check that no number of a configuration is NaN or infinite.

    Raises:
        ValueError: If one is; the message has the names of the objects that it is in.
    """
    if isinstance(settings, float) and not math.isfinite(settings):
        raise ValueError(f"{checkpoint}/config.json: {name} must be a finite number, got {settings}")
    entries = settings.items() if isinstance(settings, Mapping) else ()
    for key, value in entries:
        _check_numbers(checkpoint, value, f"{name}.{key}" if name else str(key))


def _check_feature_layers(checkpoint: str, settings: Any) -> None:
    """Check that the vision tower has the layers whose output a configuration takes.

    Raises:
        ValueError: If it has not.
    """
    taken = getattr(settings, "vision_feature_layer", None)
    count = getattr(getattr(settings, "vision_config", None), "num_hidden_layers", None)
    for layer in taken if isinstance(taken, list | tuple) else [taken]:
        if isinstance(layer, int) and isinstance(count, int) and not -count - 1 <= layer <= count:
            raise ValueError(
                f"{checkpoint}/config.json: vision_feature_layer must be from {-count - 1} to {count}, as the vision "
                f"tower has {count} layers, got {layer}"
            )


def load_processor(checkpoint: str) -> Any:
    """Load the processor of a checkpoint.

    Args:
        checkpoint: Folder or hub name.
    """
    processor = AutoProcessor.from_pretrained(checkpoint)
    if getattr(processor.video_processor, "cap_pixels_per_frame", False) is None:
        processor.video_processor.cap_pixels_per_frame = True  # as in Qwen's own code; transformers will change to it
    return processor


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
