"""Evidence: tensors that a method asks a model for besides the tokens, such as attention, keys or the question.

A `Need` names one of them. A compressor lists its `needs`, a model lists what it `offers`, and the compressor's `plan`
gets a mapping from its needs to tensors. A model computes evidence only if a compressor needs it.

Evidence about single tokens is computed per patch of the vision tower, (T * P, ...) in (frame, row, column) order. It
then follows the tokens through every plan in front of the method: pooling averages it with the weights of the tokens,
pruning selects it. So it always has one row for each token that the method sees.

A method that looks at the question needs one of these:

* In front of the language model, `Question("decoder")`, which it compares with the features; for every model::

      question = evidence[Question("decoder")].float().mean(dim=0)
      relevance = F.cosine_similarity(tokens.features.float(), question[None])

* In front of it, `Question("tower")` with `JointPatches()` (CLIP) or `FrameVectors("pool_head")` (SigLIP, one vector
  per frame), for models that were loaded with the text half of their vision tower::

      words = F.normalize(evidence[Question("tower")], dim=-1)  # (M, C)
      relevance = (F.normalize(evidence[JointPatches()], dim=-1) @ words.T).mean(dim=1)  # (N,)

* Inside it, `QueryAttention` of the last token, of all tokens of the question, or of those relevant to the video; the
  mean, the maximum, or all values::

      need = QueryAttention(layer=2, rows="relevant", reduce="none")
      score = evidence[need].mean(dim=(1, 2))  # (N, heads, rows) to (N,)

Letters: T frames, P patches per frame, N tokens that the method sees.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from stgridpool.options import choice, flag, whole_number
from stgridpool.plan import Plan

MOST_LAYERS = 1000


@dataclass(frozen=True)
class Need:
    """One tensor to ask a model for. Its ``repr`` is part of the key under which features are cached.

    Attributes:
        query_aware: Whether the tensor depends on the question; class attribute.
        per_token: Whether the tensor has a row for each token; class attribute.
        frame_axes: Number of its leading axes that are the frames; class attribute.
        from_file: Whether the tensor stands in a file of the user's, so that no model is asked; class attribute.
        made_by_steps: Whether steps of the method in the vision tower leave it behind; class attribute.
    """

    query_aware: ClassVar[bool] = False
    per_token: ClassVar[bool] = True
    frame_axes: ClassVar[int] = 0
    from_file: ClassVar[bool] = False
    made_by_steps: ClassVar[bool] = False

    @property
    def from_tower(self) -> bool:
        """Whether the vision tower computes it when it encodes the video."""
        return not self.query_aware and not self.from_file

    def digest(self) -> str | None:
        """Identify the content of the user's file that the tensor stands in; None if it stands in none."""
        return None


Evidence = Mapping[Need, Tensor]
"""The tensors that a compressor gets, one for each of its needs, on the device of the tokens."""


@dataclass(frozen=True)
class _TowerLayer(Need):
    """Base of needs that concern one layer of the vision tower.

    Attributes:
        layer: Layer, counted back from the one whose output the checkpoint uses as features: -1 is that one, -2 the
            one before it; -1000 to -1.
        joined: Whether all heads count as one head of full width, as in PruMerge, instead of the mean over heads.

    Raises:
        ValueError: If `layer` is out of its range.
    """

    layer: int = -1
    joined: bool = False

    def __post_init__(self) -> None:
        whole_number("layer", self.layer, -MOST_LAYERS, -1)
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


@dataclass(frozen=True)
class Question(Need):
    """The question's text as vectors.

    Attributes:
        space: "decoder" for the language model's embeddings (n, D) of its n tokens, "tower" for vectors (M, C) float32
            from the text half of the vision tower: one for each piece of the text that it can read at a time, not
            normalised.

    Raises:
        ValueError: If `space` is neither of these.
    """

    query_aware: ClassVar[bool] = True
    per_token: ClassVar[bool] = False

    space: str = "decoder"

    def __post_init__(self) -> None:
        choice("space", self.space, ("decoder", "tower"))


ROWS = ("last", "question", "relevant")
"""Rows of a prompt that attention may be asked from, see `QueryAttention`."""


@dataclass(frozen=True)
class QueryRows(Need):
    """Something of rows of text and a layer of the language model.

    Attributes:
        layer: The decoder layer, from 0.
        rows: "last" for the last token of the prompt, "question" for all tokens after the last video, "relevant" for
            those among these that match the videos better than average (the raters of SparseVLM): at the input of the
            language model, the softmax of its products with the question's tokens shares out each visual token among
            them, and a token is relevant if its mean share is above the mean over the question.

    Raises:
        ValueError: If an attribute is out of its range.
    """

    query_aware: ClassVar[bool] = True

    layer: int = 0
    rows: str = "last"

    def __post_init__(self) -> None:
        whole_number("layer", self.layer, 0, MOST_LAYERS)
        choice("rows", self.rows, ROWS)


@dataclass(frozen=True)
class QueryAttention(QueryRows):
    """Attention from rows of text to each visual token in a layer of the language model; float32.

    Attributes:
        reduce: "mean" or "max" over heads and rows: (N,). "none": (N, heads, rows), as much memory.
    """

    reduce: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("reduce", self.reduce, ("mean", "max", "none"))


@dataclass(frozen=True)
class RotaryBias(QueryRows):
    """What rotary embedding alone adds to attention logits between rows of text and each visual token; (N, rows).

    It is the scaled product of a query and a key of ones at their current positions. Dividing attention by it takes the
    preference for near tokens away; it falls through 0 where they are far apart.

    Source: SparseVLM+, the second version of https://github.com/Gumpest/SparseVLMs.
    """


def through(evidence: Evidence, plan: Plan) -> Evidence:
    """Return evidence about the output tokens of `plan`: rows follow the tokens, everything else stays the same.

    Args:
        evidence: Evidence about the source tokens of `plan`.
        plan: The plan that was applied to them.
    """
    return {need: _carried(value, plan) if need.per_token else value for need, value in evidence.items()}


def _carried(value: Tensor, plan: Plan) -> Tensor:
    """Return the mean of the rows of a value (N, ...) over the tokens that became one."""
    flat = value.flatten(1) if value.dim() > 1 else value[:, None]
    return plan.mean(flat).reshape(len(plan), *value.shape[1:])


def missing_part(need: Need) -> str | None:
    """Return the part of the original tower that computes `need`, if LLaVA's checkpoints leave it out.

    Returns:
        "pool_head" (of SigLIP), "text_tower", or None.
    """
    if isinstance(need, PoolHeadAttention) or need == FrameVectors("pool_head"):
        return "pool_head"
    return "text_tower" if isinstance(need, JointPatches) or need == Question("tower") else None


def check_offered(needs: Collection[Need], offers: Collection[type[Need]], asker: object) -> None:
    """Check that a model offers all the evidence that a method needs.

    Args:
        needs: The needs of the method.
        offers: Kinds of evidence that the model offers.
        asker: The method, for the message.

    Raises:
        ValueError: If one of `needs` is of another kind; the message names it and what the model offers.
    """
    missing = [need for need in needs if type(need) not in offers]
    if missing:
        known = ", ".join(sorted(kind.__name__ for kind in offers)) or "tokens alone"
        raise ValueError(f"{asker!r} needs {', '.join(map(repr, missing))}; this model offers {known}")
