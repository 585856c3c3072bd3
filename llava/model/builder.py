"""Loading a checkpoint: configuration, tokenizer, weights and preprocessing.

Unsupported architectures, towers and options are errors, and so is every weight that the checkpoint lacks.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase
from transformers.utils.import_utils import is_flash_attn_2_available

from llava.image_processing import VisionImageProcessor
from llava.model.checkpoint import read_checkpoint
from llava.model.finite_weights import check_finite
from llava.model.geometry import refuse_gaps, trains_tower
from llava.model.language_model.llava_llama import LlavaConfig
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.model.pool_head import pool_head_tensors
from llava.model.tensor_shapes import TOWER_KEY
from llava.model.text_tower import check_text_tower
from stgridpool import Compressor, build_compressor
from stgridpool.checkpoint_files import checkpoint_folder

__all__ = ["LlavaConfig", "LlavaQwenConfig", "LlavaQwenForCausalLM", "load_pretrained_model"]

logger = logging.getLogger(__name__)

_DTYPES: dict[str, torch.dtype | str] = {
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float32": torch.float32,
    "fp32": torch.float32,
    "auto": "auto",
}
_LOADING_OPTIONS = ("max_memory", "offload_folder")


def load_pretrained_model(
    model_path: str,
    model_base: str | None,
    model_name: str | None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    torch_dtype: str | torch.dtype = "float16",
    attn_implementation: str | None = "flash_attention_2",
    customized_config: Any = None,
    overwrite_config: Mapping[str, Any] | None = None,
    compressor: Compressor | str | None = None,
    pool_head: str | None = None,
    text_tower: str | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, LlavaQwenForCausalLM, VisionImageProcessor, int]:
    """Load a LLaVA-Video or LLaVA-OneVision checkpoint in LLaVA-NeXT's format, or an NVILA checkpoint.

    Configuration, tokenizer and weight files are compared before a model is built; a checkpoint that contradicts itself
    is refused. Weights must be safetensors files: pickles (`.bin`) are not read. They are loaded tensor by tensor,
    directly to their device in the requested dtype. Like LLaVA-NeXT's loader, we truncate the
    vocabulary to the length of the tokenizer; NVILA's keeps its rows.

    Args:
        model_path: Folder or hub name.
        model_base: Must be None.
        model_name: Accepted for compatibility; the kind of model follows from the configuration.
        load_8bit: Quantise the language model to 8 bits with bitsandbytes.
        load_4bit: The same to 4 bits (NF4, double quantisation).
        device_map: As in transformers; `auto` spreads the model over the visible devices.
        torch_dtype: `float16`, `bfloat16`, `float32`, their torch dtypes, or `auto` for the checkpoint's.
        attn_implementation: As in transformers. If flash-attn is not installed, `flash_attention_2` becomes `sdpa`
            with a warning.
        customized_config: A configuration, or its JSON file or folder, to use instead of the checkpoint's.
        overwrite_config: Settings that take precedence over those of the configuration.
        compressor: The method that compresses videos, a `Compressor` or a name; None for the checkpoint's own pooling.
        pool_head: Folder or hub name of the SigLIP model from which the vision tower was made, as safetensors files.
            Its last layer, last normalisation and pooling head, which LLaVA's checkpoints do not contain, are loaded
            for methods that need `PoolHeadAttention` or `FrameVectors("pool_head")`; with None such methods are
            refused.
        text_tower: Folder or hub name of the SigLIP or CLIP model from which the vision tower was made, with its
            tokenizer. Its text half is loaded for methods that need `Question("tower")` or `JointPatches`; with None
            such methods are refused.
        **kwargs: `max_memory` and `offload_folder` as in transformers; `multimodal` is accepted and ignored.

    Returns:
        Tokenizer, model, image processor, and the longest context in tokens.

    Raises:
        NotImplementedError: If the checkpoint is LoRA weights, or `model_base` is given.
        ValueError: If an option, compressor or dtype is not supported, or the checkpoint does not exist, is of another
            kind, contradicts itself, lacks files or weights, or contains weights that are not finite.
    """
    del model_name
    _check_names(kwargs)
    if isinstance(compressor, str):
        compressor = build_compressor(compressor)  # before the weights, so that a typing mistake costs no time
    if pool_head is not None:
        pool_head_tensors(pool_head)
    if text_tower is not None:
        check_text_tower(text_tower)
    dtype = _dtype(torch_dtype)
    checkpoint = read_checkpoint(_folder(model_path, model_base), customized_config, overwrite_config)
    config = checkpoint.config
    tokenizer = checkpoint.tokenizer()
    model, info = checkpoint.load(
        dtype=dtype,
        device_map=device_map,
        attn_implementation=_attention(attn_implementation),
        quantization_config=_quantization(load_8bit, load_4bit, dtype),
        **kwargs,
    )
    _complete_weights(model, info, checkpoint.source)
    check_finite(model, checkpoint.tensors)
    checkpoint.finish(model, tokenizer)
    if pool_head is not None:
        model.get_vision_tower().load_pool_head(pool_head)
    if text_tower is not None:
        model.get_vision_tower().load_text_tower(text_tower)
    model.compressor = compressor  # which may need these parts
    return tokenizer, model, model.get_vision_tower().image_processor, _context_length(config)


def _check_names(options: dict[str, Any]) -> None:
    """Leave the options of `load_pretrained_model` that have no name of their own, and refuse unknown ones."""
    options.pop("multimodal", None)
    unknown = sorted(set(options) - set(_LOADING_OPTIONS))
    if unknown:
        raise ValueError(
            f"unknown options {unknown}; besides the named ones there are {_LOADING_OPTIONS} and multimodal"
        )


def _folder(model_path: str, model_base: str | None) -> Path:
    folder = None if model_base is not None else checkpoint_folder(model_path)
    if folder is None or (folder / "adapter_config.json").exists():
        raise NotImplementedError("LoRA checkpoints and model_base are not supported: merge the weights first")
    return folder


def _dtype(torch_dtype: str | torch.dtype) -> torch.dtype | str:
    name = str(torch_dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"torch_dtype must be one of {', '.join(_DTYPES)}, got {torch_dtype!r}")
    return _DTYPES[name]


def _attention(attn_implementation: str | None) -> str | None:
    if attn_implementation == "flash_attention_2" and not is_flash_attn_2_available():
        logger.warning("flash_attention_2 was asked for and flash-attn is not installed: using sdpa")
        return "sdpa"
    return attn_implementation


def _quantization(load_8bit: bool, load_4bit: bool, dtype: torch.dtype | str) -> BitsAndBytesConfig | None:
    """Make the settings of bitsandbytes; the visual parts and the head keep their dtype.

    Raises:
        ValueError: If both widths are requested.
    """
    if load_8bit and load_4bit:
        raise ValueError("load_8bit and load_4bit exclude each other")
    if not load_8bit and not load_4bit:
        return None
    kept = ["vision_tower", "mm_projector", "lm_head"]
    if load_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=torch.float16 if dtype == "auto" else dtype,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=kept,
    )


def _complete_weights(model: LlavaQwenForCausalLM, info: Mapping[str, Any], source: str) -> None:
    """Load the tower's own weights if the checkpoint does not contain them, and reject any other gap.

    Most gaps have been found in the files before; those of OpenCLIP towers, which only open_clip knows, are found here.

    Raises:
        ValueError: If a weight is missing or has another shape, or the checkpoint contains one that the model does not
            use.
    """
    for key, stored, wanted in sorted(info["mismatched_keys"]):
        raise ValueError(f"{source} contradicts the weights: {key} would be {tuple(wanted)}, got {tuple(stored)}")
    missing = set(info["missing_keys"]) - ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    tower_keys = {key for key, _ in model.named_parameters() if key.startswith(TOWER_KEY)}
    if not trains_tower(model.config) and tower_keys <= missing:
        model.get_vision_tower().load_named_weights()
        missing -= tower_keys
    refuse_gaps(missing, set(info["unexpected_keys"]), source)


def _context_length(config: LlavaQwenConfig) -> int:
    """Return the longest context in tokens."""
    for name in ("max_sequence_length", "max_position_embeddings", "tokenizer_model_max_length"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    return 2048
