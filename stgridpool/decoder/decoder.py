"""Decoder: the interface of a language model's layers; TransformersDecoder: that of Qwen2, Llama and similar models.

Everything that depends on how transformers names the parts of a decoder, or the inputs of its layers, is in this file
and in `kv_cache`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from stgridpool.decoder.kv_cache import CACHE_ARGUMENT

Tables = tuple[Tensor, Tensor]
"""Cosines and sines of rotary embeddings, (B, n, d) each."""

LAYER_INPUTS = ("attention_mask", "position_ids", "position_embeddings")
ATTENTION_PARTS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"})


class Decoder(Protocol):
    """The interface through which steps see the layers of a language model.

    Letters: B prompts, n positions, D width, h heads, g key heads, d width of a head.
    """

    @property
    def body(self) -> nn.Module:
        """The module that calls the layers in order."""

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers, whose first input is hidden states (B, n, D)."""

    @property
    def first_layer(self) -> int:
        """The first layer before which a step may act."""

    @property
    def num_position_axes(self) -> int:
        """Number of axes on which a token has a position: 1, or 3 with M-RoPE."""

    def prefill(self, embeds: Tensor, cache: Cache) -> None:
        """Run the layers on the beginning of prompts, embeddings (B, n, D), and put it into an empty cache."""

    def check_attends_to_all(self) -> None:
        """Check that every layer attends to all earlier positions.

        Raises:
            ValueError: If one does not.
        """

    def check_attention(self, layer: int) -> None:
        """Check that queries and keys of a layer can be computed.

        Raises:
            ValueError: If they cannot; the message names what is missing.
        """

    def padding_mask(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
        """Find the mask (B, positions so far) among the inputs of `body`; None if there is none."""

    def tables(self, kwargs: Mapping[str, Any]) -> Tables:
        """Find the rotary tables among the inputs of a layer."""

    def rotary(self, hidden: Tensor, positions: Tensor) -> Tables:
        """Compute the rotary tables of positions (B, n), on the device and in the dtype of `hidden`."""

    def layer_inputs(
        self, layer: int, hidden: Tensor, mask: Tensor, positions: Tensor, tables: Tables, cache: Cache | None
    ) -> dict[str, Any]:
        """Make the inputs, besides hidden states, of all layers from `layer` on.

        Args:
            layer: The first of these layers; its cache entries are the positions before the n new ones.
            hidden: (B, n, D), its hidden states.
            mask: (B, cached + n) bool, the positions that are real.
            positions: (B, n), numbered without gaps.
            tables: Rotary tables of the n positions.
            cache: The cache, or None.
        """

    def queries(self, layer: int, hidden: Tensor, tables: Tables) -> Tensor:
        """Compute the queries (h, n, d) of hidden states (n, D) at the input of a layer, with tables (n, d) each."""

    def keys(self, layer: int, hidden: Tensor, tables: Tables) -> Tensor:
        """Compute the keys (g, n, d) of hidden states (n, D) at the input of a layer, with tables (n, d) each."""

    def rotate(self, layer: int, heads: Tensor, tables: Tables) -> Tensor:
        """Apply rotary embedding to queries or keys (h, n, d) of a layer, with tables (n, d) each."""

    def scaling(self, layer: int) -> float:
        """Return the factor of the products of queries and keys."""


class TransformersDecoder:
    """The layers of a causal language model of transformers; for attributes and methods see `Decoder`.

    Args:
        model: The model, such as a Qwen2ForCausalLM, or the part of it that has the layers.
        first_layer: The first layer before which a step may act; layers before it get more than hidden states.

    Raises:
        ValueError: If the model is not built like Qwen2 and Llama; the message names what is missing.
    """

    def __init__(self, model: Any, first_layer: int = 0) -> None:
        self.first_layer = first_layer
        self.body: Any = model.base_model  # Any: families share these attributes, but no class that declares them
        missing = [name for name in ("config", "layers", "rotary_emb") if not hasattr(self.body, name)]
        if not missing:
            known = inspect.signature(self.body.layers[0].forward).parameters
            missing = [f"layers[0].forward({name})" for name in LAYER_INPUTS if name not in known]
        if missing:
            raise ValueError(
                f"{type(model).__name__} is not a decoder like Qwen2 or Llama: it has no {', '.join(missing)}"
            )

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers."""
        layers: Sequence[nn.Module] = self.body.layers
        return layers

    @property
    def num_position_axes(self) -> int:
        """Number of axes on which a token has a position: 3 with M-RoPE, else 1."""
        named = "mrope_section" in (getattr(self.body.config, "rope_parameters", None) or {})
        return 3 if named or hasattr(self.body.rotary_emb, "mrope_section") else 1

    def prefill(self, embeds: Tensor, cache: Cache) -> None:
        """Run the layers on the beginning of prompts, embeddings (B, n, D), and put it into an empty cache."""
        self.body(inputs_embeds=embeds, use_cache=True, **{CACHE_ARGUMENT: cache})

    def check_attends_to_all(self) -> None:
        """Check that every layer attends to all earlier positions.

        Raises:
            ValueError: If one does not.
        """
        kinds = set(getattr(self.body.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise ValueError(f"a compressor inside the language model needs full attention, got layers of {kinds}")

    def check_attention(self, layer: int) -> None:
        """Check that the attention of a layer has the parts of Qwen2, Qwen3 or Llama, and no others.

        Raises:
            ValueError: If a part is missing or unknown; the message names it.
        """
        missing = [] if hasattr(self.layers[layer], "input_layernorm") else ["input_layernorm"]
        attention = getattr(self.layers[layer], "self_attn", None)
        parts = {name.split(".")[0] for name, _ in attention.named_parameters()} if attention is not None else set()
        missing += sorted(f"self_attn.{name}" for name in {"q_proj", "k_proj"} - parts)
        missing += [f"self_attn.{name}" for name in ("scaling", "head_dim") if not hasattr(attention, name)]
        if attention is not None and not hasattr(defining_module(attention), "apply_rotary_pos_emb"):
            missing.append("apply_rotary_pos_emb")
        if missing:
            raise ValueError(f"attention of layer {layer} cannot be computed: it has no {', '.join(missing)}")
        if parts - ATTENTION_PARTS:
            unknown = ", ".join(sorted(parts - ATTENTION_PARTS))
            raise ValueError(f"attention of layer {layer} cannot be computed: it also has {unknown}")

    def padding_mask(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
        """Find the mask among the inputs of the body; None if there is none.

        Raises:
            ValueError: If its shape is not (batch, positions).
        """
        mask = inspect.signature(self.body.forward).bind_partial(*args, **kwargs).arguments.get("attention_mask")
        if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
            raise ValueError("a compressor inside the language model needs a mask of (batch, positions), or none")
        return mask

    def tables(self, kwargs: Mapping[str, Any]) -> Tables:
        """Find the rotary tables among the inputs of a layer."""
        cosines, sines = kwargs["position_embeddings"]
        return cosines, sines

    def rotary(self, hidden: Tensor, positions: Tensor) -> Tables:
        """Compute the rotary tables of positions (B, n), the same on every axis, as text has them."""
        axes = positions if self.num_position_axes == 1 else positions.expand(self.num_position_axes, -1, -1)
        cosines, sines = self.body.rotary_emb(hidden, axes)
        return cosines, sines

    def layer_inputs(
        self, layer: int, hidden: Tensor, mask: Tensor, positions: Tensor, tables: Tables, cache: Cache | None
    ) -> dict[str, Any]:
        """Make the inputs, besides hidden states, of all layers from `layer` on."""
        causal = create_causal_mask(
            config=self.body.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            position_ids=positions,
            layer_idx=None if cache is None else layer,
            **{CACHE_ARGUMENT: cache},
        )
        # Positions are numbered without gaps: flash attention takes a gap for the boundary of two packed prompts.
        return dict(zip(LAYER_INPUTS, (causal, positions, tables), strict=True))

    def queries(self, layer: int, hidden: Tensor, tables: Tables) -> Tensor:
        """Compute the queries (h, n, d) of hidden states (n, D) at the input of a layer, with tables (n, d) each."""
        return self._projected(layer, "q", hidden, tables)

    def keys(self, layer: int, hidden: Tensor, tables: Tables) -> Tensor:
        """Compute the keys (g, n, d) of hidden states (n, D) at the input of a layer, with tables (n, d) each."""
        return self._projected(layer, "k", hidden, tables)

    def rotate(self, layer: int, heads: Tensor, tables: Tables) -> Tensor:
        """Apply rotary embedding to queries or keys (h, n, d) of a layer, with tables (n, d) each."""
        cosines, sines = (table[None].to(heads.device) for table in tables)
        block: Any = self.layers[layer]
        # The function of the model itself, since some families rotate other pairs of channels. It rotates queries and
        # keys together; the second argument has no heads.
        source = defining_module(block.self_attn)
        rotated: Tensor = source.apply_rotary_pos_emb(heads[None], heads[None, :0], cosines, sines)[0]
        return rotated[0]

    def scaling(self, layer: int) -> float:
        """Return the factor of the products of queries and keys."""
        attention: Any = self.layers[layer].self_attn
        return float(attention.scaling)

    def _projected(self, layer: int, kind: str, hidden: Tensor, tables: Tables) -> Tensor:
        block: Any = self.layers[layer]
        attention = block.self_attn
        project, norm = getattr(attention, f"{kind}_proj"), getattr(attention, f"{kind}_norm", None)
        device = next(block.parameters()).device  # a model on several devices moves hidden states in the layer itself
        projected = project(block.input_layernorm(hidden.to(device)))  # (n, h * d)
        if norm is not None:  # over each head, as in Qwen3, or over all of them, as in OLMo
            width = norm.weight.shape[-1]
            projected = norm(projected.unflatten(-1, (-1, width))).flatten(-2)
        return self.rotate(layer, projected.unflatten(-1, (-1, attention.head_dim)).transpose(0, 1), tables)


def defining_module(module: nn.Module) -> Any:
    """Return the Python module that defines the class of `module`."""
    return sys.modules[type(module).__module__]
