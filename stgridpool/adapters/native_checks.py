"""Checks that a native checkpoint's configuration and weights agree, before any weight is read where possible."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

BUILDING_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, StrictDataclassError, TypeError)
"""What transformers raises where settings allow no model."""
_NUMBERED = re.compile(r"(?P<layers>[A-Za-z_.]+)\.(?P<number>\d+)\.")


def check_stored(folder: Path) -> None:
    """Check the configuration of a folder against the names and shapes of its tensors; no weight is read.

    Quantised weights are not checked, nor are other formats than safetensors.

    Args:
        folder: The checkpoint's; one that does not exist is not checked.

    Raises:
        ValueError: If no model can be built, or weights are missing or contradict the configuration.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return
    places: dict[str, Path] = {}
    shapes: dict[str, torch.Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dictionary
                    places[name] = path
                    shapes[name] = torch.empty(file.get_slice(name).get_shape(), device="meta")
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}; copy or download it again") from error
    try:
        config = AutoConfig.from_pretrained(folder)
        if getattr(config, "quantization_config", None) is not None:
            return
        check_numbers(str(folder), config)
        with torch.device("meta"):
            kind: Any = type(AutoModelForImageTextToText.from_config(config))
        options = {"device_map": "meta", "ignore_mismatched_sizes": True, "output_loading_info": True}
        model, info = kind.from_pretrained(None, config=config, state_dict=shapes, **options)
    except BUILDING_ERRORS as error:
        raise cannot_build(str(folder), error) from error
    check_found(str(folder), model, info, places)


def cannot_build(checkpoint: str, error: Exception) -> ValueError:
    """Return the error to raise where `error` has stopped transformers."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ValueError(f"no model can be built from {checkpoint} with its config.json: {reason[:300]}")


def check_found(
    checkpoint: str, model: nn.Module, info: Mapping[str, Any], places: Mapping[str, Path] | None = None
) -> None:
    """Check what transformers says of the weights that it has found.

    Args:
        checkpoint: Folder or hub name, for messages.
        model: The model.
        info: What ``from_pretrained`` returns with ``output_loading_info``.
        places: The file of each stored tensor, for messages.

    Raises:
        ValueError: If weights are missing or contradict the configuration. Other weights that the model does not have
            are nobody's fault, and transformers names them, unless they belong to layers beyond its own.
    """
    if info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"])[:5])
        raise ValueError(f"{checkpoint} lacks weights of the model, which would be random: {lacking}")
    for name, stored, wanted in sorted(info.get("mismatched_keys", ()))[:1]:
        raise ValueError(
            f"the weights of {checkpoint} contradict its config.json: {name} would be {tuple(wanted)}, and "
            f"{_file_of(name, places)} holds {tuple(stored)}"
        )
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    for name in sorted(info.get("unexpected_keys", ())):
        for found in _NUMBERED.finditer(name):
            count = next((count for known, count in lists.items() if known.endswith(found["layers"])), None)
            if count is not None and int(found["number"]) >= count:
                raise ValueError(
                    f"the weights of {checkpoint} contradict its config.json, which has {count} layers in "
                    f"{found['layers']}: {_file_of(name, places)} also holds {name}"
                )


def _file_of(name: str, places: Mapping[str, Path] | None) -> str:
    """Return the file that holds a weight: transformers may name it otherwise than the file, from the beginning."""
    parts = name.split(".")
    for start in range(len(parts)):
        rest = ".".join(parts[start:])
        for stored, path in (places or {}).items():
            if stored == rest or stored.endswith(f".{rest}"):
                return path.name
    return "the file"


def check_numbers(checkpoint: str, config: Any) -> None:
    """Check that all numbers of a configuration are finite, and that the vision tower has the layers that it names.

    Raises:
        ValueError: If one is not; the message has the names of the objects that it is in.
    """
    _check_finite(checkpoint, config.to_dict(), "")
    taken = getattr(config, "vision_feature_layer", None)
    count = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    for layer in taken if isinstance(taken, list | tuple) else [taken]:
        if isinstance(layer, int) and isinstance(count, int) and not -count - 1 <= layer <= count:
            raise ValueError(
                f"{checkpoint}/config.json: vision_feature_layer must be from {-count - 1} to {count}, as the vision "
                f"tower has {count} layers, got {layer}"
            )


def _check_finite(checkpoint: str, settings: Any, name: str) -> None:
    if isinstance(settings, float) and not math.isfinite(settings):
        raise ValueError(f"{checkpoint}/config.json: {name} must be a finite number, got {settings}")
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        _check_finite(checkpoint, value, f"{name}.{key}" if name else str(key))
