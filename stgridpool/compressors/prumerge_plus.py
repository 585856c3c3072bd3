"""PruMerge+: PruMerge with centres spread evenly over the frame besides those that stand out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.algorithms.outliers import outlier_shares
from stgridpool.algorithms.sets import Sets
from stgridpool.compressors.prumerge import PruMerge
from stgridpool.plan import Shape, to_device
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """Keep the most attended tokens of each frame and some at even distances as centres; else as `PruMerge`.

    With a budget, centres are chosen as in EffiVLM-Bench's port to SigLIP. The mean over frames of the fraction of
    outliers, at least one token, says how many of a frame's b centres are those of highest attention. The others are
    the first of every ``int(R / b)``-th of its R tokens that are not centres yet, so that missing ones are missing at
    the bottom. If outliers exceed b, the b most attended are the centres.

    The authors' code for CLIP has no budget. A fraction f of a frame's tokens are centres for their attention, and with
    ``attention_share="adaptive"`` so is every s-th token, s a third of 1/f, both rounded down: up to the whole frame.
    Where f is given, s is 1/f, and the first of them is the middle one of s. In ``preset="released"`` the last token of
    a frame is not among them, and where f is given a token may be a centre twice: it then counts twice, and the first
    of the dropped tokens is lost for it; ``corrected`` does neither. Where all tokens are centres the released extra
    token is zero and takes the place of the first one. Without outliers the code fails; here s is a whole frame.

    Source: LLaVA-PruMerge (ICCV 2025), arXiv 2403.15388; EffiVLM-Bench (ACL 2025), arXiv 2506.00479.
    """

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """See `Compressor.planned_count`; None where attention decides."""
        if not isinstance(self.attention_share, float):
            return super().planned_count(shape, total)
        if total is not None or self.preset == "corrected":
            return None
        area, step = shape[1] * shape[2], int(1 / self.attention_share)
        return shape[0] * (int(area * self.attention_share) + len(range(step // 2, area - 1, step)) + 1)

    def centres(self, attention: Tensor, sets: Sets, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        """Choose the centres of each frame, see `PruMerge.centres`."""
        sizes, most, start, end = sets.sizes, 2 * sets.sizes, 0, sets.sizes
        if self.attention_share is None:
            most = self.frame_shares(tokens) - 1
            shares = outlier_shares(attention, sets.is_there)
            share = sum(shares) / int((sizes > 0).sum())
            by_attention = (sizes.double() * share).long().clamp_min(1).minimum(most.clamp_min(0))
            step = (sizes // most.clamp_min(1)).clamp_min(1)
        else:
            share = self.share_by_attention(attention, sets)
            by_attention = (sizes.double() * share).long()
            is_adaptive = isinstance(self.attention_share, str)
            every = int(1 / share) if share else 3 * attention.shape[1]
            step = torch.full_like(sizes, every // 3 if is_adaptive else every)
            start = 0 if is_adaptive else every // 2
            end = sizes - 1 if self.preset == "released" else sizes
        repeats = isinstance(self.attention_share, float) and self.preset == "released"
        numbers = torch.stack([by_attention, step, end, most - by_attention], 1)
        places, is_counted = lattice_after_top(attention, to_device(numbers, attention.device), start, repeats)
        counts = is_counted.sum(1).cpu().where(most >= 0, -1)
        return places[:, : max(0, int(counts.max()))], counts


def lattice_after_top(attention: Tensor, numbers: Tensor, start: int, repeats: bool) -> tuple[Tensor, Tensor]:
    """Choose the tokens of highest attention in each frame, and after them those at even distances.

    Args:
        attention: (T, R).
        numbers: (T, 4) int64: how many are chosen for their attention, the distance of the others, the place
            before which they end, and how many there are at most, from the first on.
        start: Place of the first of them.
        repeats: Whether tokens that were chosen for their attention are chosen again.

    Returns:
        Places (T, 2R) int64, the chosen ones first, and (T, 2R) bool, which are chosen.
    """
    by_attention, step, end, most = numbers.split(1, dim=1)
    width = attention.shape[1]
    places = torch.arange(width, device=attention.device)
    rank = attention.argsort(dim=1, descending=True, stable=True).argsort(1)
    is_top = rank < by_attention
    is_even = ((places - start) % step == 0) & (places >= start) & (places < end)
    is_even &= is_even if repeats else ~is_top
    is_even &= is_even.cumsum(1) <= most
    key = torch.cat([rank.where(is_top, 2 * width), (width + places).where(is_even, 2 * width)], 1)
    key, order = key.sort(dim=1, stable=True)
    return order % width, key < 2 * width
