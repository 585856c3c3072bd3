"""Checks that a native checkpoint's configuration and weights agree, before any weight is read where possible."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import WARNING, Filter, LogRecord
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer
from transformers.utils import logging

from stgridpool.adapters.native_settings import check_agreement, check_ranges
from stgridpool.checkpoint_files import StoredTensor, one_line, read_json, stored_tensors

BUILDING_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError),
    *(StrictDataclassError, TypeError, ValueError),
)
"""What transformers raises where settings allow no model."""
_NUMBERED = re.compile(r"(?P<layers>[A-Za-z_.]+)\.(?P<number>\d+)\.")
_TEXT_LAYER = re.compile(r"model\.(language_model\.)?layers\.(?P<number>\d+)\.")
_HARMLESS = re.compile(
    r"(.*\.)?(vision_tower|vision_model|visual)\..*\bhead\..*|.*\.inv_freq|.*\.position_ids|v_head\..*"
)
"""Weights that checkpoints hold and inference does not use, such as the head that reinforcement learning trains."""
_ATTENTION = "eager"
"""A kind of attention that every model has; a configuration may name another one, whose library is missing."""


def check_stored(folder: Path) -> dict[str, StoredTensor]:
    """Check the configuration of a folder against the names and shapes of its tensors; no weight is read.

    Shapes of quantised weights are not checked, as the library that reads them decides about them.

    Args:
        folder: The checkpoint's.

    Returns:
        The tensors in its weight files.

    Raises:
        ValueError: If a file is missing or damaged, a setting is invalid, no model can be built, or weights are
            missing, unknown or contradict the configuration.
    """
    tensors = stored_tensors(folder)
    if (folder / "generation_config.json").is_file():  # transformers would go on without a damaged one
        read_json(folder / "generation_config.json")
    config = read_config(folder, read_json(folder / "config.json"))
    if is_quantised(config):
        return tensors
    for name, tensor in tensors.items():
        if not tensor.is_float and not _HARMLESS.fullmatch(name):
            raise ValueError(
                f"{tensor.path}: {name} must hold floating-point numbers unless config.json has a quantization_config, "
                f"got {tensor.dtype}"
            )
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()}
    options = {"device_map": "meta", "ignore_mismatched_sizes": True, "output_loading_info": True}
    options |= {"attn_implementation": _ATTENTION}
    try:
        kind: Any = type(outline(config))
        with _silent():
            model, info = kind.from_pretrained(None, config=config, state_dict=shapes, **options)
    except BUILDING_ERRORS as error:
        raise cannot_build(folder, error) from error
    check_found(folder, model, info, tensors)
    return tensors


def read_config(checkpoint: str | Path, settings: Mapping[str, Any]) -> Any:
    """Read a configuration as transformers completes it, and check its settings.

    Args:
        checkpoint: Folder or hub name.
        settings: The content of its config.json.

    Raises:
        ValueError: If a setting is invalid or contradicts another, or transformers does not know the kind of model or
            of quantisation.
    """
    source = f"{checkpoint}/config.json"
    check_ranges(settings, source)
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)  # None would ask on the terminal
        quantisation = _quantisation(config)
        if quantisation and not AutoHfQuantizer.supports_quant_method(quantisation):
            raise ValueError(f"quant_method {quantisation['quant_method']!r} of quantization_config is unknown")
    except BUILDING_ERRORS as error:
        raise cannot_build(checkpoint, error) from error
    check_ranges(config.to_dict(), source)
    check_agreement(config.to_dict(), source)
    return config


def outline(config: Any) -> Any:
    """Build the model of a configuration without weights, on the device "meta"."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, attn_implementation=_ATTENTION)


class _Kept(Filter):
    """Keeps the text of log records, and lets none pass."""

    text = ""

    def filter(self, record: LogRecord) -> bool:
        self.text += record.getMessage()
        return False


@contextmanager
def _silent() -> Iterator[None]:
    """Let transformers print nothing inside the block: no weight is loaded, and what it finds is said below.

    Raises:
        RuntimeError: If tensors of the files cannot be converted to the model's; transformers would name them in a
            report that it logs.
    """
    shows_progress, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    reporting, report = logging.get_logger(PreTrainedModel.__module__), _Kept()
    level = reporting.level
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    reporting.setLevel(WARNING)
    reporting.addFilter(report)
    try:
        yield
    except RuntimeError as error:
        found = re.findall(r"^(?:Error: |RuntimeError: )(.+)$", report.text, re.MULTILINE)
        if not found:
            raise
        raise RuntimeError("; ".join(reversed(found))) from error
    finally:
        reporting.removeFilter(report)
        reporting.setLevel(level)
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()


def is_quantised(config: Any) -> bool:
    """Tell whether a configuration says that the weights are quantised."""
    return bool(_quantisation(config))


def _quantisation(config: Any) -> Any:
    parts = (config, config.get_text_config())
    return next((found for part in parts if (found := getattr(part, "quantization_config", None))), None)


def cannot_build(checkpoint: str | Path, error: Exception) -> ValueError:
    """Return the error to raise where `error` has stopped transformers."""
    return ValueError(
        f"no model can be built from {checkpoint} with its config.json: {type(error).__name__}: {one_line(error)}"
    )


def check_found(folder: Path, model: nn.Module, info: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Check what transformers says of the weights that it has found.

    Args:
        folder: The checkpoint's, for messages.
        model: The model.
        info: What ``from_pretrained`` returns with ``output_loading_info``.
        tensors: The tensors in the checkpoint's files.

    Raises:
        ValueError: If weights are missing, unknown, or contradict the configuration. What transformers or inference
            ignore may be there, and so may whatever else belongs to quantised weights.
    """
    if info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"])[:5])
        raise ValueError(f"{folder} lacks weights of the model, which would be random: {lacking}")
    for name, stored, wanted in sorted(info.get("mismatched_keys", ()))[:1]:
        raise ValueError(
            f"the weights of {folder} contradict its config.json: {name} would be {tuple(wanted)}, and "
            f"{_file_of(name, tensors)} holds {tuple(stored)}"
        )
    unknown = [name for name in sorted(info.get("unexpected_keys", ())) if not _is_unused(name, model.config)]
    _check_depths(folder, model, unknown, tensors)
    if unknown and not is_quantised(model.config):
        files = ", ".join(dict.fromkeys(_file_of(name, tensors) for name in unknown))
        raise ValueError(
            f"{folder} holds weights ({len(unknown)} in {files}) that the model of its config.json does not have: "
            f"{', '.join(unknown[:5])}"
        )


def _is_unused(name: str, config: Any) -> bool:
    """Tell whether inference does without a weight; layers after the last may be there to predict further tokens."""
    text, found = config.get_text_config(), _TEXT_LAYER.match(name)
    more = getattr(text, "num_nextn_predict_layers", None) or 0
    predicts = found and 0 <= int(found["number"]) - text.num_hidden_layers < more
    return bool(predicts or _HARMLESS.fullmatch(name))


def _check_depths(folder: Path, model: nn.Module, unknown: list[str], tensors: Mapping[str, StoredTensor]) -> None:
    """Check that no weights belong to layers beyond those of the model.

    Raises:
        ValueError: If some do.
    """
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    for name in unknown:
        for found in _NUMBERED.finditer(name):
            count = next((count for known, count in lists.items() if known.endswith(found["layers"])), None)
            if count is not None and int(found["number"]) >= count:
                raise ValueError(
                    f"the weights of {folder} contradict its config.json, which has {count} layers in "
                    f"{found['layers']}: {_file_of(name, tensors)} also holds {name}"
                )


def _file_of(name: str, tensors: Mapping[str, StoredTensor]) -> str:
    """Return the file that holds a weight: transformers may name it otherwise than the file, from the beginning."""
    parts = name.split(".")
    for start in range(len(parts)):
        rest = ".".join(parts[start:])
        for stored, tensor in tensors.items():
            if stored == rest or stored.endswith(f".{rest}"):
                return tensor.path.name
    return "the file"


def check_end_tokens(folder: Path, model: Any) -> None:
    """Check that the tokens that end an answer are in the vocabulary.

    Raises:
        ValueError: If one is not.
    """
    most = model.config.get_text_config().vocab_size - 1
    found = model.generation_config.eos_token_id
    for token in [] if found is None else found if isinstance(found, list) else [found]:
        if type(token) is not int or not 0 <= token <= most:
            name = "generation_config.json" if (folder / "generation_config.json").is_file() else "config.json"
            raise ValueError(
                f"{folder / name}: eos_token_id must be from 0 to {most}, as vocab_size says, got {token!r}"
            )
