"""PruMerge: the tokens that stand out in the vision tower's attention, each with some of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.outliers import outlier_shares
from stgridpool.algorithms.sets import Sets
from stgridpool.evidence import AttentionReceived, ClassAttention, Evidence, Need, TowerKeys
from stgridpool.options import choice, fraction, whole_number
from stgridpool.plan import Plan, Shape, to_device
from stgridpool.scorer import FrameBudgeted
from stgridpool.video_tokens import VideoTokens

IMPORTANCE: dict[str, tuple[Need, Need]] = {
    "received": (AttentionReceived(joined=True), TowerKeys(joined=True)),
    "class": (ClassAttention(0, joined=True), TowerKeys(0, joined=True)),
}
"""Attention of one head over the full width, and its keys, by the names that options have for them."""


@dataclass(frozen=True)
class PruMerge(FrameBudgeted):
    """Keep the most attended tokens of each frame as centres, and merge others into them by similarity of keys.

    A centre becomes the sum of itself and of the 32 others of its frame with the most similar keys, each times its
    attention; centres may be among them. One extra token of each frame is the sum of all that were dropped, times
    their attention, and takes the place of the most attended one. Frames share a budget, and the extra
    token counts: a frame with a share of k has k - 1 centres. Queries and keys are those of one head of full width.

    In ``preset="released"`` sums stay sums, so that the extra token is much shorter than others; ``corrected`` divides
    by the sum of the weights. The released code has no budget, but counts the outliers of attention.

    Attention of CLIP's class token, and keys, are those of the layer after the features, as released, or of the last
    layer where none follows. SigLIP has no class token, so that attention received in the last layer that runs stands
    in, as in EffiVLM-Bench. Unlike the source, which merges before the projector, we merge projected tokens, and tokens
    stay in raster order.

    Source: LLaVA-PruMerge (ICCV 2025), arXiv 2403.15388.

    Attributes:
        preset: "released" or "corrected", see above.
        importance: Attention "received" from all patches, or of the "class" token.
        attention_share: In place of a budget, the fraction of a frame's tokens that are centres for their attention,
            above 0 and at most 1, rounded down; or "adaptive" for that of outliers in the whole video: values above
            the third quartile by more than 1.5 times the distance of the quartiles.
        neighbours: Maximum number of tokens merged into a centre, 0 to 1000.

    Raises:
        ValueError: If an option is out of its range, or a budget is given in two ways.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("attention_share",)
    PRESETS: ClassVar[tuple[str, ...]] = ("released", "corrected")

    preset: str = "released"
    importance: str = "received"
    attention_share: float | str | None = None
    neighbours: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.attention_share, str):
            choice("attention_share", self.attention_share, ("adaptive",))
        elif self.attention_share is not None:
            object.__setattr__(self, "attention_share", fraction("attention_share", self.attention_share))
        if self.attention_share is not None and self.frame_budget != "uniform":
            raise ValueError(f"frame_budget={self.frame_budget!r} shares a budget, and attention_share takes its place")
        choice("preset", self.preset, self.PRESETS)
        choice("importance", self.importance, IMPORTANCE)
        whole_number("neighbours", self.neighbours, 0, 1000)

    @property
    def needs(self) -> frozenset[Need]:
        """The attention that `importance` names, and keys."""
        return frozenset(IMPORTANCE[self.importance])

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """See `Compressor.planned_count`; None where attention decides."""
        if self.attention_share is None:
            return super().planned_count(shape, total)
        if isinstance(self.attention_share, str) or total is not None:
            return None
        area = shape[1] * shape[2]
        count = int(area * self.attention_share) + 1
        return shape[0] * (count if self.preset == "released" else min(count, area))

    def centres(self, attention: Tensor, sets: Sets, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        """Choose the centres of each frame.

        Args:
            attention: (T, R), -inf where a frame has no more tokens.
            sets: The frames.
            tokens: All tokens.

        Returns:
            Their places (T, C) int64, and how many of them each frame has, (T,) int64 on the CPU; -1 for a frame
            without any token, not even the extra one.
        """
        if self.attention_share is None:
            counts = self.frame_shares(tokens) - 1
        else:
            counts = (sets.sizes.double() * self.share_by_attention(attention, sets)).long()
        return attention.argsort(dim=1, descending=True, stable=True)[:, : max(0, int(counts.max()))], counts

    def share_by_attention(self, attention: Tensor, sets: Sets) -> float:
        """Return the fraction of a frame's tokens that are centres for their attention, without a budget."""
        if isinstance(self.attention_share, float):
            return self.attention_share
        values = attention[sets.is_there][None]  # of the whole video
        return outlier_shares(values, torch.ones_like(values, dtype=torch.bool))[0]

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Choose centres, and say how much of each token goes into each of them and into the extra tokens."""
        sets = Sets.within(tokens, "frame")
        attention, keys = (evidence[need].float() for need in IMPORTANCE[self.importance])
        attention = attention[sets.index]  # (T, R)
        centres, counts = self.centres(attention.masked_fill(~sets.is_there, -torch.inf), sets, tokens)
        counts = to_device(counts, centres.device)[:, None]
        is_centre = torch.arange(centres.shape[1], device=centres.device) < counts  # (T, C)
        itself = F.one_hot(centres, attention.shape[1]).float() * is_centre[:, :, None]  # (T, C, R)
        repeats = (itself.sum(1) - 1).clamp_min(0).sum(1, keepdim=True)
        is_dropped = sets.is_there & (itself.sum(1) == 0)
        is_dropped &= is_dropped.cumsum(1) > repeats  # the released way to drop loses a token for each repeated one

        keys = F.normalize(keys, dim=-1)[sets.index]
        near = nearest_others(keys, centres, is_centre, is_dropped, self.neighbours).float()
        merged = (near[:, :, : centres.shape[1]] @ itself + near[:, :, centres.shape[1] :]) * attention[:, None]
        extra = attention.where(is_dropped, 0)[:, None]
        if self.preset == "corrected":
            extra = is_dropped[:, None].float().where(extra.sum(2, keepdim=True) == 0, extra)
        weights = torch.cat([itself + merged, extra], 1)  # (T, C + 1, R)
        has_extra = (counts >= 0) & sets.is_there[:, :1]
        if self.preset == "corrected":
            weights = weights / weights.sum(2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            has_extra = has_extra & is_dropped.any(1, keepdim=True)
        heaviest = attention.masked_fill(~is_dropped, -torch.inf).argmax(1, keepdim=True)
        return sets.mixed(weights, torch.cat([centres, heaviest], 1), torch.cat([is_centre, has_extra], 1))


def nearest_others(keys: Tensor, centres: Tensor, is_centre: Tensor, is_dropped: Tensor, most: int) -> Tensor:
    """Tell which others have keys most similar to those of each centre; of equal ones the first.

    Args:
        keys: (T, R, d) of length 1.
        centres: (T, C) int64, places in the frame.
        is_centre: (T, C) bool, which of them there are.
        is_dropped: (T, R) bool.
        most: Others of a centre.

    Returns:
        (T, C, C + R) bool: the other centres in their order, then the dropped tokens in theirs.
    """
    of_centres = keys.gather(1, centres[:, :, None].expand(-1, -1, keys.shape[2]))
    cosine = of_centres @ torch.cat([of_centres, keys], 1).mT
    can_be = torch.cat([is_centre, is_dropped], 1)[:, None].repeat(1, centres.shape[1], 1)
    can_be.diagonal(dim1=1, dim2=2).fill_(False)
    order = cosine.masked_fill(~can_be, -torch.inf).argsort(dim=2, descending=True, stable=True)[:, :, :most]
    return torch.zeros_like(can_be).scatter(2, order, True) & can_be
