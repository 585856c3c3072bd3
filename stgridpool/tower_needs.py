"""Evidence that the vision tower computes when it encodes a video: attention, keys and vectors.

Letters: T frames, N tokens that the method sees, C width of the space that CLIP shares with text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stgridpool.need import MOST_LAYERS, Need
from stgridpool.options import choice, flag, whole_number


@dataclass(frozen=True)
class _TowerLayer(Need):
    """Base of needs that concern one layer of the vision tower.

    Attributes:
        layer: Layer, counted back from the one whose output the checkpoint uses as features: -1 is that one, -2 the
            one before it; -1000 to 0. 0 is the layer that would read the features if it ran, as in PruMerge.
        joined: Whether all heads count as one head of full width, as in PruMerge, instead of the mean over heads.

    Raises:
        ValueError: If `layer` is out of its range.
    """

    layer: int = -1
    joined: bool = False

    def __post_init__(self) -> None:
        whole_number("layer", self.layer, -MOST_LAYERS, 0)
        flag("joined", self.joined)


@dataclass(frozen=True)
class AttentionReceived(_TowerLayer):
    """Attention that each patch receives in a layer of the tower, averaged over heads and queries; (N,) float32.

    In towers without a class token it sums to 1 over the patches of a frame.
    """


@dataclass(frozen=True)
class ClassAttention(_TowerLayer):
    """Attention of the class token to each patch in a layer of the tower, averaged over heads; (N,) float32."""


@dataclass(frozen=True)
class PoolHeadAttention(Need):
    """Attention of the probe in SigLIP's pooling head to each patch, averaged over heads; (N,) float32.

    LLaVA's checkpoints do not contain the head; its weights come from the checkpoint of the original tower.
    """


IMPORTANCE: dict[str, Need] = {
    "received": AttentionReceived(),
    "class": ClassAttention(),
    "pool_head": PoolHeadAttention(),
}
"""Kinds of attention that rank tokens, by the names that options use; every tower offers "received"."""


@dataclass(frozen=True)
class TowerKeys(_TowerLayer):
    """The key of each patch in a layer of the tower, averaged over heads; (N, width of a head) float32.

    Joined keys are (N, width of the tower), which takes as much memory as the features.
    """


@dataclass(frozen=True)
class FrameVectors(Need):
    """One vector per frame; (T, width) float32.

    Attributes:
        source: The "mean" of the frame's features, their "class" token, or the output of the "pool_head".

    Raises:
        ValueError: If `source` is none of these.
    """

    per_token: ClassVar[bool] = False
    frame_axes: ClassVar[int] = 1

    source: str = "mean"

    def __post_init__(self) -> None:
        choice("source", self.source, ("mean", "class", "pool_head"))


@dataclass(frozen=True)
class JointPatches(Need):
    """Each patch in the space that CLIP shares with its text half, see `Question`; (N, C) float32.

    The tower's last normalisation and its projection, applied to the patches of the features. They were trained on the
    class token, so that similarities of patches to a text order the patches but mean little as numbers; CDPruner finds
    that in CLIP the patches least like the text are the relevant ones.

    Source: CDPruner (NeurIPS 2025), arXiv 2506.10967, for the patches; https://arxiv.org/abs/2103.00020 (CLIP).
    """
