"""TowerEvidence: evidence from a vision tower, computed in the same pass as the features.

Hooks keep the queries, keys or outputs of the layers needed during the pass and are removed after it. The tower runs
with its own attention implementation. Attention weights are computed separately from queries and keys, one block at a
time, so that memory stays bounded and the features are the same with and without evidence.

Letters: B images, L tokens of the tower per image, P patches among them (the last ones; class and other extra tokens
come first), d width of a head, C width of the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llava.model.capture import captured
from llava.model.pool_head import PoolHead
from llava.model.text_tower import missing_text_tower
from stgridpool.algorithms.patch_attention import attention_received, first_token_attention, join_heads
from stgridpool.evidence import (
    AttentionReceived,
    ClassAttention,
    FrameVectors,
    JointPatches,
    Need,
    PoolHeadAttention,
    TowerKeys,
    missing_part,
)


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """A layer of a tower, and the modules from which to read its queries and keys.

    Attributes:
        block: Module whose output is that of the layer, (B, L, C).
        query_source: Module whose output contains the queries.
        key_source: Module whose output contains the keys.
        queries: Maps the output of `query_source` to the queries (B, heads, L, d).
        keys: Maps the output of `key_source` to the keys (B, heads, L, d).
        scale: Factor of the products of queries and keys.
        run: Applies the layer to hidden states (B, L, C).
    """

    block: nn.Module
    query_source: nn.Module
    key_source: nn.Module
    queries: Callable[[Tensor], Tensor]
    keys: Callable[[Tensor], Tensor]
    scale: float
    run: Callable[[Tensor], Any]


@dataclass(frozen=True, eq=False)
class TowerEvidence:
    """The evidence that a vision tower can compute about the images that it encodes.

    Attributes:
        name: Name of the tower, for messages.
        layers: The layers that run, in order; the output of the last one is used as features. Empty if attention is not
            available.
        num_patches: Number P of patches per image.
        has_class_token: Whether the first token is a class token.
        may_have_pool_head: Whether towers of this kind were trained with a pooling head, which can be loaded.
        pool_head: The pooling head, if it was loaded.
        may_have_joint_patches: Whether patches can be projected into a space shared with text, which needs `joint`.
        joint: Projects features (B, P, C) into that space, if it was loaded.
        behind: The layer after those that run, if the tower has it; it runs only for evidence about layer 0.
        is_complete: Whether all layers run, so that the last of them is meant by layer 0, too.
    """

    name: str
    layers: Sequence[AttentionLayer]
    num_patches: int
    has_class_token: bool = False
    may_have_pool_head: bool = False
    pool_head: PoolHead | None = None
    may_have_joint_patches: bool = False
    joint: Callable[[Tensor], Tensor] | None = None
    behind: AttentionLayer | None = None
    is_complete: bool = False

    def offered(self) -> frozenset[type[Need]]:
        """Return the kinds of evidence that this tower can compute, including those of parts that are not loaded."""
        kinds: set[type[Need]] = {FrameVectors}
        if self.layers:
            kinds |= {AttentionReceived, TowerKeys}
            kinds |= {ClassAttention} if self.has_class_token else set()
        kinds |= {JointPatches} if self.may_have_joint_patches else set()
        return frozenset(kinds | ({PoolHeadAttention} if self.may_have_pool_head else set()))

    def check(self, needs: Collection[Need]) -> None:
        """Check that this tower can compute the evidence for `needs`.

        Raises:
            ValueError: If a need is of a kind that is not offered, names a layer that the tower lacks, or requires a
                class token, pooling head or text half that is missing; the message says which, and what to do.
        """
        for need in needs:
            if not self.has_class_token and (isinstance(need, ClassAttention) or need == FrameVectors("class")):
                raise ValueError(
                    f"{need!r} asks for a class token, and the vision tower {self.name} has none: use "
                    "AttentionReceived, or the pooling head of SigLIP"
                )
            if missing_part(need) == "pool_head" and self.pool_head is None:
                raise ValueError(f"{need!r} asks for {self._missing_pool_head()}")
            if isinstance(need, JointPatches) and self.may_have_joint_patches and self.joint is None:
                raise ValueError(missing_text_tower(need, self.name))
            layer = _layer(need)
            if layer is not None and self.layers and layer < -len(self.layers):
                raise ValueError(f"{need!r}: the vision tower {self.name} runs {len(self.layers)} layers")
            if layer == 0 and self.behind is None and not self.is_complete:
                raise ValueError(
                    f"{need!r} asks for the layer after the features, and the vision tower {self.name} has none "
                    "there: use importance=received"
                )
            if need == FrameVectors("class") and not self.layers:
                raise ValueError(f"{need!r}: no layer of the vision tower {self.name} can be watched")
            if type(need) not in self.offered():
                offers = ", ".join(sorted(kind.__name__ for kind in self.offered()))
                raise ValueError(f"{need!r} cannot come from the vision tower {self.name}, which offers {offers}")

    def collect(self, encode: Callable[[], Tensor], needs: Collection[Need]) -> tuple[Tensor, dict[Need, Tensor]]:
        """Run the tower, and compute evidence from the layers needed.

        Args:
            encode: Runs the tower once and returns its features (B, P or L, C).
            needs: The evidence to compute; see `check`.

        Returns:
            The features, and the evidence for each need on their device: (B * P,) or (B * P, d) in (image, row, column)
            order, or (B, C) for `FrameVectors`; float32.
        """
        self.check(needs)
        with captured(module for need in needs for module in self._watched(need)) as outputs:
            features = encode()
            if self.behind is not None and any(_layer(need) == 0 for need in needs):
                with torch.no_grad():
                    self.behind.run(outputs[self.layers[-1].block])
        with torch.no_grad():
            pooled = None
            if self.pool_head is not None and any(missing_part(need) == "pool_head" for need in needs):
                pooled = self.pool_head.run(features)
            found = {need: self._evidence(need, features, outputs, pooled) for need in needs}
        return features, {need: value.to(features.device, torch.float32) for need, value in found.items()}

    def _watched(self, need: Need) -> tuple[nn.Module, ...]:
        """Return the modules from whose outputs `need` is computed."""
        last = (self.layers[-1].block,) if _layer(need) == 0 or need == FrameVectors("class") else ()
        if isinstance(need, AttentionReceived | ClassAttention):
            layer = self._layer_of(need)
            return layer.query_source, layer.key_source, *last
        if isinstance(need, TowerKeys):
            return self._layer_of(need).key_source, *last
        return last

    def _layer_of(self, need: AttentionReceived | ClassAttention | TowerKeys) -> AttentionLayer:
        return self.behind if need.layer == 0 and self.behind is not None else self.layers[need.layer or -1]

    def _evidence(
        self, need: Need, features: Tensor, outputs: dict[nn.Module, Any], pooled: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        if isinstance(need, AttentionReceived | ClassAttention | TowerKeys):
            layer = self._layer_of(need)
            keys, scale = layer.keys(outputs[layer.key_source]), layer.scale
            if need.joined:
                keys, scale = join_heads(keys), scale * keys.shape[1] ** -0.5
            if isinstance(need, TowerKeys):
                return self._patches(keys.mean(1, dtype=torch.float32))
            queries = layer.queries(outputs[layer.query_source])
            reduce = attention_received if isinstance(need, AttentionReceived) else first_token_attention
            return self._patches(reduce(join_heads(queries) if need.joined else queries, keys, scale))
        if pooled is not None and missing_part(need) == "pool_head":
            attention, vectors = pooled
            return attention.flatten() if isinstance(need, PoolHeadAttention) else vectors
        if need == FrameVectors("class"):
            output: Tensor = outputs[self.layers[-1].block]
            return output[:, 0]
        if isinstance(need, JointPatches) and self.joint is not None:
            return self._patches(self.joint(features))
        return features[:, -self.num_patches :].mean(1, dtype=torch.float32)

    def _patches(self, tokens: Tensor) -> Tensor:
        """Select the rows of patches (B * P, ...) from those of all tokens (B, L, ...)."""
        return tokens[:, -self.num_patches :].flatten(0, 1)

    def _missing_pool_head(self) -> str:
        if not self.may_have_pool_head:
            return f"SigLIP's pooling head, and the vision tower {self.name} is not a SigLIP tower"
        return (
            f"the pooling head that {self.name} was trained with, and LLaVA's checkpoints leave it out: load the model "
            "with the option pool_head, a folder or hub name of the original tower such as "
            "pool_head=google/siglip-so400m-patch14-384"
        )


def _layer(need: Need) -> int | None:
    """Return the layer that a need names, if any."""
    layer: int | None = getattr(need, "layer", None)
    return layer


def split_heads(num_heads: int, tokens: Tensor) -> Tensor:
    """Split tokens (B, L, heads * d) into heads (B, heads, L, d)."""
    heads: Tensor = tokens.unflatten(-1, (num_heads, -1))
    return heads.transpose(1, 2)
