"""The cost of a prompt in a language model, estimated from its size and the tokens that enter each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderSize:
    """The size of a language model of equal layers, with gated feed-forward networks, as Qwen2 and Llama have.

    Attributes:
        layers: Number of layers.
        width: Width D of the tokens.
        heads: Number of heads of queries.
        kv_heads: Number of heads of keys and values.
        head_size: Width of a head.
        inner_width: Width of the feed-forward network.
        vocabulary: Number of ids.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner_width: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> DecoderSize:
        """Read the size from a configuration of transformers."""
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            inner_width=config.intermediate_size,
            vocabulary=config.vocab_size,
        )

    def prefill_flops(self, lengths: Sequence[float]) -> float:
        """Estimate the floating-point operations of a prompt, a multiplication and an addition counted as two.

        Counted are the products with weights, the two products of causal attention, half of each, and the logits of
        the last position; not normalisation, softmax and rotary embeddings, which are small beside them.

        Args:
            lengths: Positions that enter each layer.
        """
        attended = self.heads * self.head_size
        projections = 2 * self.width * attended + 2 * self.width * self.kv_heads * self.head_size
        per_position = 2 * (projections + 3 * self.width * self.inner_width)
        layers = sum(per_position * length + 2 * attended * length**2 for length in lengths)
        return layers + 2 * self.width * self.vocabulary

    def kv_bytes(self, lengths: Sequence[float], bytes_per_number: int = 2) -> float:
        """Return the size of the cache of keys and values in bytes.

        Args:
            lengths: Positions that enter each layer.
            bytes_per_number: 2 for float16 and bfloat16, 4 for float32.
        """
        return sum(lengths) * 2 * self.kv_heads * self.head_size * bytes_per_number
