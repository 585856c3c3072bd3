"""The cost of a prompt in a language model, estimated from its size and the tokens that enter each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LINEAR = "linear_attention"
"""What configurations call a layer of linear attention in `layer_types`."""


@dataclass(frozen=True)
class DecoderSize:
    """The size of a language model with gated feed-forward networks, as Qwen2 and Llama have, or with experts.

    Attributes:
        layers: Number of layers.
        width: Width D of the tokens.
        heads: Number of heads of queries.
        kv_heads: Number of heads of keys and values.
        head_size: Width of a head.
        inner_width: Width of the feed-forward network; with experts, of all through which a position goes, as a mean of
            the layers.
        vocabulary: Number of ids.
        linear_layers: Layers of linear attention: they keep no keys and values, and of their attention only the
            projections are counted, as if they were those of the other layers.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner_width: float
    vocabulary: int
    linear_layers: frozenset[int] = frozenset()

    @classmethod
    def of(cls, config: Any) -> DecoderSize:
        """Read the size from a configuration of transformers."""
        kinds = getattr(config, "layer_types", None) or ()
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            inner_width=_inner_width(config),
            vocabulary=config.vocab_size,
            linear_layers=frozenset(layer for layer, kind in enumerate(kinds) if kind == LINEAR),
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
        full = self._of_full_attention(lengths)
        layers = per_position * sum(lengths) + sum(2 * attended * length**2 for length in full)
        return layers + 2 * self.width * self.vocabulary

    def kv_bytes(self, lengths: Sequence[float], bytes_per_number: int = 2) -> float:
        """Return the size of the cache of keys and values in bytes.

        Args:
            lengths: Positions that enter each layer.
            bytes_per_number: 2 for float16 and bfloat16, 4 for float32.
        """
        return sum(self._of_full_attention(lengths)) * 2 * self.kv_heads * self.head_size * bytes_per_number

    def _of_full_attention(self, lengths: Sequence[float]) -> list[float]:
        return [length for layer, length in enumerate(lengths) if layer not in self.linear_layers]


def _inner_width(config: Any) -> float:
    """Return the mean width of the feed-forward networks through which a position goes.

    Layers with experts have a few of them at work, and shared ones; Qwen3-VL and GLM-4V name layers without experts.
    """
    of_expert = getattr(config, "moe_intermediate_size", None)
    if of_expert is None:
        return int(config.intermediate_size)
    shared = getattr(config, "shared_expert_intermediate_size", None)
    if shared is None:
        shared = of_expert * (getattr(config, "n_shared_experts", None) or 0)
    dense = {*(getattr(config, "mlp_only_layers", None) or ()), *range(getattr(config, "first_k_dense_replace", 0))}
    step = getattr(config, "decoder_sparse_step", None) or 1
    widths = [
        config.intermediate_size
        if layer in dense or (layer + 1) % step
        else of_expert * config.num_experts_per_tok + shared
        for layer in range(config.num_hidden_layers)
    ]
    return float(sum(widths) / len(widths))
