"""A model of a chosen geometry with seeded random weights, made where it will work.

Weights are drawn on the device in the dtype asked for: 7B in bf16 are 15 GB that neither a disk nor the host sees.
They have learnt nothing, but answer as real ones do: with the letter of an option, then the end.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from make_tiny_checkpoint import answer_with_a_letter
from nano.miniature.checkpoint_format import TOKENIZER_TEXT, Size, model_config, train_tokenizer, write_tokenizer
from transformers import AutoTokenizer

from benchmarking.geometry import Geometry
from llava.model.builder import LlavaQwenConfig, LlavaQwenForCausalLM

QUERY_SIZE = 8


@dataclass(frozen=True, eq=False)
class RandomModel:
    """A model as the plug-in takes it after loading."""

    model: LlavaQwenForCausalLM
    tokenizer: Any
    image_processor: Any


def make_model(
    geometry: Geometry, texts: list[str], dtype: torch.dtype, device: torch.device, seed: int = 0
) -> RandomModel:
    """Build a model with random weights.

    Args:
        geometry: Its sizes.
        texts: What its tokenizer is trained on; they are then split about as finely as Qwen2's tokenizer splits text.
        dtype: Of the weights.
        device: Where they are made.
        seed: Of the weights.
    """
    tokenizer = train_tokenizer([*TOKENIZER_TEXT, *texts], vocab_size=1024)
    settings = model_settings(geometry, tokenizer)
    with torch.device(device):
        model = LlavaQwenForCausalLM._from_config(LlavaQwenConfig.from_dict(settings), dtype=dtype).eval()
    fill(model, torch.Generator(device).manual_seed(seed))
    arranged = answer_with_a_letter(dict(model.state_dict()), tokenizer)
    model.get_input_embeddings().weight.data = arranged["model.embed_tokens.weight"]
    model.get_output_embeddings().weight.data = arranged["lm_head.weight"]
    stop_ids = [tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = stop_ids, stop_ids[1]
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(tokenizer, Path(folder))
        return RandomModel(model, AutoTokenizer.from_pretrained(folder), model.get_vision_tower().image_processor)


def model_settings(geometry: Geometry, tokenizer: Any) -> dict[str, Any]:
    """Return the settings of config.json for `geometry`."""
    size = Size(
        geometry.image_size,
        geometry.vision_width,
        geometry.vision_layers,
        geometry.width,
        geometry.layers,
        geometry.heads,
        geometry.key_value_heads,
    )
    settings = model_config(size, tokenizer)
    settings["vision_config"] |= {
        "intermediate_size": geometry.vision_inner,
        "num_attention_heads": geometry.vision_heads,
    }
    settings |= {"model_type": "llava_qwen", "intermediate_size": geometry.inner}
    return settings | ({} if geometry.vocabulary is None else {"vocab_size": geometry.vocabulary})


@torch.no_grad()
def fill(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draw the weights: norms one, biases zero, embeddings of deviation one, the rest of 1 / sqrt(inputs).

    Queries are larger, so that attention picks some positions instead of averaging all: answers then depend on the
    video and the question.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.zero_()
        elif "norm" in name:
            parameter.fill_(1)
        else:
            inputs = 1 if "embed_tokens" in name or "newline" in name else math.prod(parameter.shape[1:])
            size = QUERY_SIZE if "q_proj" in name else 1
            parameter.normal_(std=size / math.sqrt(inputs), generator=generator)
