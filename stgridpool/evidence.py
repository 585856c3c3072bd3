"""Evidence: tensors that a method asks a model for besides the tokens, such as attention, keys or the question.

A `Need` names one of them. A compressor lists its `needs`, a model lists what it `offers`, and the compressor's `plan`
gets a mapping from its needs to tensors. A model computes evidence only if a compressor needs it.

Evidence about single tokens is computed per patch of the vision tower, (T * P, ...) in (frame, row, column) order. It
then follows the tokens through every plan before the method: pooling averages it with the weights of the tokens,
pruning selects it. So it always has one row for each token that the method sees.

A method that looks at the question needs one of these:

* Before the language model, `Question("decoder")`, which it compares with the features; for every model::

      question = evidence[Question("decoder")].float().mean(dim=0)
      relevance = F.cosine_similarity(tokens.features.float(), question[None])

* Before it, `Question("tower")` with `JointPatches()` (CLIP) or `FrameVectors("pool_head")` (SigLIP, one vector
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

from collections.abc import Collection

from torch import Tensor

from stgridpool.need import MOST_LAYERS, Evidence, Need
from stgridpool.plan import Plan
from stgridpool.question_needs import ROWS, QueryAttention, QueryRows, Question, RotaryBias
from stgridpool.tower_needs import (
    IMPORTANCE,
    AttentionReceived,
    ClassAttention,
    FrameVectors,
    JointPatches,
    PoolHeadAttention,
    TowerKeys,
)

__all__ = [
    "IMPORTANCE",
    "MOST_LAYERS",
    "ROWS",
    "AttentionReceived",
    "ClassAttention",
    "Evidence",
    "FrameVectors",
    "JointPatches",
    "Need",
    "PoolHeadAttention",
    "QueryAttention",
    "QueryRows",
    "Question",
    "RotaryBias",
    "TowerKeys",
    "check_offered",
    "missing_part",
    "through",
]


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
