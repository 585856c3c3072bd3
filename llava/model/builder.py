"""Loading a checkpoint: configuration, tokenizer, weights and preprocessing.

Nothing is left to chance: an architecture, tower or option that is not supported is an error, and so is every weight
that the checkpoint lacks.
"""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BitsAndBytesConfig, PreTrainedConfig, PreTrainedTokenizerBase, Qwen2Tokenizer
from transformers.utils import is_flash_attn_2_available

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.image_processing import VisionImageProcessor
from llava.model.language_model.llava_llama import LlavaConfig
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from stgridpool import Compressor, build_compressor

__all__ = ["LlavaConfig", "LlavaQwenConfig", "LlavaQwenForCausalLM", "load_pretrained_model"]

logger = logging.getLogger(__name__)

_ARCHITECTURE = "LlavaQwenForCausalLM"
_DTYPES: dict[str, torch.dtype | str] = {
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float32": torch.float32,
    "fp32": torch.float32,
    "auto": "auto",
}
_TOWER_KEY = "model.vision_tower."
# Weights that checkpoints hold and that no inference reads.
_HARMLESS = re.compile(r"model\.faster_token|model\.vision_tower\..*\bhead\..*|.*\.inv_freq|.*\.position_ids")
_NULLABLE = ("mm_", "tokenizer_", "rope_scaling")
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
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, LlavaQwenForCausalLM, VisionImageProcessor, int]:
    """Loads a LLaVA-Video or LLaVA-OneVision checkpoint in LLaVA-NeXT's format.

    The vocabulary is cut to the tokenizer's length, as the original loader does. Weights go straight to their device in
    the dtype asked for, tensor by tensor.

    Args:
        model_path: Folder or hub name.
        model_base: Must be None.
        model_name: Accepted for compatibility; the kind of model follows from the configuration.
        load_8bit: Quantise the language model to 8 bits with bitsandbytes.
        load_4bit: The same to 4 bits (NF4, double quantisation).
        device_map: As in transformers; `auto` spreads the model over the visible devices.
        torch_dtype: `float16`, `bfloat16`, `float32`, their torch dtypes, or `auto` for the checkpoint's.
        attn_implementation: As in transformers. Where flash-attn is not installed, `flash_attention_2` becomes `sdpa`
            with a warning.
        customized_config: A configuration, or the path of one, to be used in place of the checkpoint's.
        overwrite_config: Settings that replace the configuration's before the model is built.
        compressor: What reduces the tokens of videos, a `Compressor` or a name; None: the checkpoint's own pooling.
        **kwargs: `max_memory` and `offload_folder` as in transformers; `multimodal` is accepted and not needed.

    Returns:
        Tokenizer, model, image processor, and the longest context in tokens.

    Raises:
        NotImplementedError: A LoRA checkpoint or `model_base`.
        ValueError: A checkpoint, option, compressor or dtype that is not supported, or a checkpoint that lacks weights.
    """
    del model_name
    kwargs.pop("multimodal", None)
    unknown = sorted(set(kwargs) - set(_LOADING_OPTIONS))
    if unknown:
        raise ValueError(
            f"unknown options {unknown}; besides the named ones there are {_LOADING_OPTIONS} and multimodal"
        )
    if model_base is not None or Path(model_path, "adapter_config.json").exists():
        raise NotImplementedError("LoRA checkpoints and model_base are not supported: merge the weights first")
    if isinstance(compressor, str):
        compressor = build_compressor(compressor)  # before the weights, so that a typing error costs nothing
    config = _load_config(model_path, customized_config, overwrite_config or {})
    tokenizer = _load_tokenizer(model_path, config)
    dtype = _dtype(torch_dtype)
    loaded: Any = LlavaQwenForCausalLM.from_pretrained(
        model_path,
        config=config,
        dtype=dtype,
        device_map=device_map,
        attn_implementation=_attention(attn_implementation),
        quantization_config=_quantization(load_8bit, load_4bit, dtype),
        output_loading_info=True,
        **kwargs,
    )
    model, info = loaded
    _complete_weights(model, set(info["missing_keys"]), info["unexpected_keys"])
    _fit_vocabulary(model, len(tokenizer))
    model.compressor = compressor
    return tokenizer, model, model.get_vision_tower().image_processor, _context_length(config)


def _load_config(model_path: str, customized_config: Any, overwrites: Mapping[str, Any]) -> LlavaQwenConfig:
    """The configuration, judged by its architecture: `model_type` is `llava` or `qwen2` in released checkpoints.

    Settings are replaced before the object is made, so that they mean what they mean in the file (`rope_scaling`).
    """
    if isinstance(customized_config, PreTrainedConfig):
        settings = customized_config.to_dict()
    else:
        settings = PreTrainedConfig.get_config_dict(customized_config or model_path)[0]
    architectures = settings.get("architectures")
    is_ours = architectures == [_ARCHITECTURE] if architectures else "num_key_value_heads" in settings
    if not is_ours or not settings.get("mm_vision_tower"):
        raise ValueError(
            f"{model_path} is not a LLaVA checkpoint on Qwen2: its config.json must have architectures "
            f"[{_ARCHITECTURE!r}] and mm_vision_tower, got {architectures} and {settings.get('mm_vision_tower')!r}"
        )
    settings = {**settings, **overwrites, "model_type": LlavaQwenConfig.model_type, "architectures": [_ARCHITECTURE]}
    # Null means "not set" in released checkpoints (rope_scaling, for one); the defaults then hold.
    absent = [name for name, value in settings.items() if value is None and name.startswith(_NULLABLE)]
    settings = {name: value for name, value in settings.items() if name not in absent}
    return LlavaQwenConfig.from_dict(settings)


def _load_tokenizer(model_path: str, config: LlavaQwenConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, with the image tokens that the configuration asks for."""
    only_merges = Path(model_path).is_dir() and not Path(model_path, "tokenizer.json").exists()
    tokenizer = (Qwen2Tokenizer if only_merges else AutoTokenizer).from_pretrained(model_path)
    if config.mm_use_im_patch_token:
        tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
    if config.mm_use_im_start_end:
        tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    return tokenizer


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
    """Settings of bitsandbytes; the visual parts and the head keep their dtype.

    Raises:
        ValueError: Both widths are asked for.
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


def _complete_weights(model: LlavaQwenForCausalLM, missing: set[str], unexpected: Collection[str]) -> None:
    """Fetches the tower's weights where the checkpoint leaves them to the tower, and rejects any other gap.

    Raises:
        ValueError: A weight is missing, or the checkpoint holds one that the model has no use for.
    """
    config = model.config
    in_checkpoint = "mm_vision_tower" in (config.mm_tunable_parts or "") or bool(config.unfreeze_mm_vision_tower)
    if config.tie_word_embeddings:
        missing.discard("lm_head.weight")
    tower_keys = {key for key, _ in model.named_parameters() if key.startswith(_TOWER_KEY)}
    if not in_checkpoint and tower_keys <= missing:
        model.get_vision_tower().load_named_weights()
        missing -= tower_keys
    strange = sorted(key for key in unexpected if not _HARMLESS.fullmatch(key))
    for problem, keys in (("lacks", sorted(missing)), ("holds unknown", strange)):
        if keys:
            raise ValueError(f"the checkpoint {problem} weights ({len(keys)}): {', '.join(keys[:5])}")


def _fit_vocabulary(model: LlavaQwenForCausalLM, length: int) -> None:
    """Cuts the embeddings and the head to `length` tokens, as LLaVA-NeXT's loader does.

    Raises:
        ValueError: There are fewer rows than tokens, or the rows are offloaded.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if length > rows:
        raise ValueError(f"the tokenizer has {length} tokens and the checkpoint only {rows} embeddings")
    if length == rows:
        return
    if any(module.weight.is_meta for module in (model.get_input_embeddings(), model.get_output_embeddings())):
        raise ValueError(
            "embed_tokens and lm_head cannot be offloaded: give them a device in device_map, or a smaller model"
        )
    model.resize_token_embeddings(length)


def _context_length(config: LlavaQwenConfig) -> int:
    """Longest context in tokens."""
    for name in ("max_sequence_length", "max_position_embeddings", "tokenizer_model_max_length"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    return 2048
