"""One layer of a language model, to compare the time of a compressor with what it saves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

from benchmarking.geometry import Geometry


def decoder_layer_call(
    geometry: Geometry, num_tokens: int, dtype: torch.dtype, device: torch.device
) -> Callable[[], object]:
    """Return a function that runs a prompt of `num_tokens` random hidden states through a layer with random weights."""
    config = Qwen2Config(
        hidden_size=geometry.width,
        intermediate_size=geometry.inner,
        num_hidden_layers=1,
        num_attention_heads=geometry.heads,
        num_key_value_heads=geometry.key_value_heads,
        attn_implementation="sdpa",
    )
    with torch.device(device):
        layer = Qwen2DecoderLayer(config, layer_idx=0).to(dtype).eval()
        hidden = torch.randn(1, num_tokens, geometry.width, dtype=dtype)
        positions = Qwen2RotaryEmbedding(config)(hidden, torch.arange(num_tokens)[None])
    return partial(layer, hidden, position_embeddings=positions)
