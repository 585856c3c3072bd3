"""Loading of a checkpoint as a `VideoModel`, the interface for evaluation and tools."""

from collections.abc import Mapping
from typing import Any

import torch

from llava.model.builder import load_pretrained_model
from llava.nvila.model import NvilaForCausalLM
from llava.nvila.video_model import NvilaVideoModel
from llava.video_model import LlavaVideoModel

DEFAULT_TEMPLATE = "qwen_1_5"


def load_video_model(
    checkpoint: str,
    *,
    model_name: str | None,
    conv_template: str | None,
    add_time_instruction: bool,
    device_map: str,
    dtype: torch.dtype,
    attn_implementation: str | None,
    overwrite_config: Mapping[str, Any],
    pool_head: str | None,
    text_tower: str | None,
) -> LlavaVideoModel:
    """Load a checkpoint in LLaVA-NeXT's format, or an NVILA checkpoint.

    Args:
        checkpoint: Folder or hub name.
        model_name: A hint of LLaVA-NeXT's scripts; the checkpoint's configuration decides.
        conv_template: Name of the conversation template; None for `DEFAULT_TEMPLATE`, or NVILA's own chat template.
        add_time_instruction: See `LlavaVideoModel`.
        device_map: See `load_pretrained_model`.
        dtype: Dtype of the weights.
        attn_implementation: See `load_pretrained_model`.
        overwrite_config: Settings that take precedence over those of the checkpoint's configuration.
        pool_head: See `load_pretrained_model`.
        text_tower: See `load_pretrained_model`.
    """
    tokenizer, model, image_processor, _ = load_pretrained_model(
        checkpoint,
        None,
        model_name,
        device_map=device_map,
        torch_dtype=dtype,
        attn_implementation=attn_implementation,
        overwrite_config=overwrite_config,
        pool_head=pool_head,
        text_tower=text_tower,
    )
    model.eval()
    if isinstance(model, NvilaForCausalLM):
        return NvilaVideoModel(model, tokenizer, image_processor, conv_template, add_time_instruction)
    return LlavaVideoModel(model, tokenizer, image_processor, conv_template or DEFAULT_TEMPLATE, add_time_instruction)
