"""Tiny models of the Qwen families, which take frames of any size: a token is 8x8 pixels of two frames."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from native_models.parts import DECODER, FOUR_LAYERS, WIDTH, chat_template, make_tokenizer, randomize

PATCHES = {"patch_size": 4, "temporal_patch_size": 2}
PIXELS = {
    "size": {"shortest_edge": 8 * 8, "longest_edge": 64 * 64 * 64},
    "merge_size": 2,
    **PATCHES,
}
VISION = {"depth": 3, "num_heads": 2, "spatial_merge_size": 2, "intermediate_size": 48, **PATCHES}
TEMPLATE = chat_template("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
INTERLEAVED = MROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}


def qwen2_vl() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Qwen2-VL."""
    tokenizer = _tokenizer()
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 2, "spatial_merge_size": 2, **PATCHES}
    text = DECODER | {"vocab_size": len(tokenizer), "rope_parameters": MROPE}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer))
    return randomize(Qwen2VLForConditionalGeneration(config)), _processor(Qwen2VLProcessor, tokenizer)


def qwen2_5_vl() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Qwen2.5-VL with windows of 2x2 tokens in all but the last vision layer."""
    tokenizer = _tokenizer()
    windows = {"window_size": 16, "fullatt_block_indexes": [2], "tokens_per_second": 2}
    vision = VISION | windows | {"hidden_size": 32, "out_hidden_size": WIDTH}
    text = FOUR_LAYERS | {"vocab_size": len(tokenizer), "rope_parameters": MROPE}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer))
    return randomize(Qwen2_5_VLForConditionalGeneration(config)), _processor(Qwen2_5_VLProcessor, tokenizer)


def qwen3_vl() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Qwen3-VL with two DeepStack levels."""
    tokenizer = _tokenizer()
    config = Qwen3VLConfig(text_config=_qwen3(tokenizer), vision_config=_deepstack(), **_ids(tokenizer))
    return randomize(Qwen3VLForConditionalGeneration(config)), _qwen3_processor(tokenizer)


def qwen3_vl_moe() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Qwen3-VL with four experts, two of them at work."""
    tokenizer = _tokenizer()
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "tie_word_embeddings": False}
    text = _qwen3(tokenizer) | experts | {"num_hidden_layers": 3}
    config = Qwen3VLMoeConfig(text_config=text, vision_config=_deepstack(), **_ids(tokenizer))
    return randomize(Qwen3VLMoeForConditionalGeneration(config)), _qwen3_processor(tokenizer)


def qwen3_5() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Qwen3.5 with linear attention in every other decoder layer."""
    tokenizer = _tokenizer()
    config = Qwen3_5Config(**_qwen3_5(tokenizer))
    return randomize(Qwen3_5ForConditionalGeneration(config)), _qwen3_processor(tokenizer)


def qwen3_5_moe() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Qwen3.5 with four experts, two of them at work, and a shared one."""
    tokenizer = _tokenizer()
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = Qwen3_5MoeConfig(**_qwen3_5(tokenizer, **experts, shared_expert_intermediate_size=32))
    return randomize(Qwen3_5MoeForConditionalGeneration(config)), _qwen3_processor(tokenizer)


def _tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    return {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}


def _processor(kind: type[ProcessorMixin], tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    videos = Qwen2VLVideoProcessor(**PIXELS, cap_pixels_per_frame=False)
    return kind(Qwen2VLImageProcessor(**PIXELS), tokenizer, videos, chat_template=TEMPLATE)


def _qwen3(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return FOUR_LAYERS | {"vocab_size": len(tokenizer), "head_dim": 16, "rope_parameters": INTERLEAVED}


def _qwen3_5(tokenizer: PreTrainedTokenizerFast, **settings: int) -> dict[str, Any]:
    linear = {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    linear |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    kinds = {"layer_types": ["linear_attention", "full_attention"] * 2}
    rope = INTERLEAVED | {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    text = _qwen3(tokenizer) | linear | kinds | {"rope_parameters": rope} | settings
    vision = VISION | {"num_position_embeddings": 64, "hidden_size": 32, "out_hidden_size": WIDTH}
    return {"text_config": text, "vision_config": vision, **_ids(tokenizer)}


def _deepstack() -> dict[str, Any]:
    levels = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    return VISION | levels | {"hidden_size": 32, "out_hidden_size": WIDTH}


def _qwen3_processor(tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    videos = Qwen3VLVideoProcessor(**PIXELS, cap_pixels_per_frame=False)
    return Qwen3VLProcessor(Qwen2VLImageProcessor(**PIXELS), tokenizer, videos, chat_template=TEMPLATE)
