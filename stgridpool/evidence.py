"""Evidence: what a method asks a model for besides the tokens, such as attention, keys or the question.

A `Need` names one thing. A compressor lists its needs, a model says which it `offers`, and the compressor's `plan` gets
a mapping with exactly what it asked for. Evidence is computed only when asked for.

Evidence about single tokens is computed per patch of the vision tower, (T * P, ...) in (frame, row, column) order, and
then follows the tokens through every plan in front of the method: through pooling by the same weights, through pruning
by selection. So it always has a row for each token that the method sees.

A method that looks at the question asks for one of these:

* In front of the language model, `Question("decoder")`, to be compared with the features, in every model::

      question = evidence[Question("decoder")].float().mean(dim=0)
      relevance = F.cosine_similarity(tokens.features.float(), question[None])

* In front of it, `Question("tower")` with `JointPatches()` (CLIP) or `FrameVectors("pool_head")` (SigLIP, one vector
  per frame), where the model was loaded with the text half of its vision tower::

      words = F.normalize(evidence[Question("tower")], dim=-1)  # (M, C)
      relevance = (F.normalize(evidence[JointPatches()], dim=-1) @ words.T).mean(dim=1)  # (N,)

* Inside it, `QueryAttention`: of the last token, of all the question's, or of those that the video is relevant to, the
  mean, the largest, or each by itself::

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
    """One thing to ask a model for. Its ``repr`` is part of the key under which features are cached.

    Attributes:
        query_aware: Whether the answer depends on the question; class attribute.
        per_token: Whether the answer has a row for each token; class attribute.
    """

    query_aware: ClassVar[bool] = False
    per_token: ClassVar[bool] = True


Evidence = Mapping[Need, Tensor]
"""What a compressor gets: exactly what its `needs` name, each on the device of the tokens."""


@dataclass(frozen=True)
class _TowerLayer(Need):
    """Something of one layer of the vision tower.

    Attributes:
        layer: Layer counted back from the one whose output the checkpoint takes as features: -1 is that one, -2 the
            one before it; -1000 to -1.
        joined: Whether all heads count as one of full width, as PruMerge has it, in place of the mean over heads.
    """

    layer: int = -1
    joined: bool = False

    def __post_init__(self) -> None:
        whole_number("layer", self.layer, -MOST_LAYERS, -1)
        flag("joined", self.joined)


@dataclass(frozen=True)
class AttentionReceived(_TowerLayer):
    """Attention that each patch receives in a layer of the tower: the mean over heads and queries.

    (N,) float32; over the patches of a frame it sums to 1 in towers without a class token.
    """


@dataclass(frozen=True)
class ClassAttention(_TowerLayer):
    """Attention of the class token to each patch in a layer of the tower, the mean over heads; (N,) float32."""


@dataclass(frozen=True)
class PoolHeadAttention(Need):
    """Attention of the probe of SigLIP's pooling head to each patch, the mean over heads; (N,) float32.

    LLaVA's checkpoints leave the head out; its weights come from the original tower's checkpoint.
    """


IMPORTANCE: dict[str, Need] = {
    "received": AttentionReceived(),
    "class": ClassAttention(),
    "pool_head": PoolHeadAttention(),
}
"""How important the tower finds each token, by the names that options have for it; "received" exists in every tower."""


@dataclass(frozen=True)
class TowerKeys(_TowerLayer):
    """The keys of each patch in a layer of the tower, the mean over heads; (N, width of a head) float32.

    Joined they are (N, width of the tower), which takes as much room as the features.
    """


@dataclass(frozen=True)
class FrameVectors(Need):
    """One vector per frame; (T, width) float32.

    Attributes:
        source: "mean" of the frame's features, the "class" token of the features, or the output of the "pool_head".
    """

    per_token: ClassVar[bool] = False

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
        space: "decoder" for the language model's embeddings (n, D) of its n tokens, "tower" for the vectors (M, C)
            float32 of the text half of the vision tower: one for each piece of the text that it can read at a time,
            not normalised.
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
        rows: "last" for the last token of the prompt, "question" for all tokens behind the last video, "relevant" for
            those of them that match the videos better than their average: as they enter the language model, every
            visual token is dealt out over the question's tokens by the softmax of its products with them, and the mean
            over the visual tokens is compared (SparseVLM's raters).
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
    """Return evidence about the tokens that `plan` leaves: rows follow the tokens, everything else stays.

    Args:
        evidence: About the source tokens of `plan`.
        plan: What happened to them.
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
    """Refuse a method that asks for what a model does not offer.

    Args:
        needs: What the method asks for.
        offers: Kinds of evidence that the model offers.
        asker: The method, for the message.

    Raises:
        ValueError: If one of `needs` is of another kind; it is named, with what the model offers.
    """
    missing = [need for need in needs if type(need) not in offers]
    if missing:
        known = ", ".join(sorted(kind.__name__ for kind in offers)) or "tokens alone"
        raise ValueError(f"{asker!r} needs {', '.join(map(repr, missing))}; this model offers {known}")
