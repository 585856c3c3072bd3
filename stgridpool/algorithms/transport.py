"""Optimal transport between sets of equal weights, softened by entropy (Sinkhorn's iteration).

Letters: K pairs of sets, M sources and C targets in each; N tokens, D width.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.rows import Rows, stacked

_ITERATIONS, _TOLERANCE, _TINY = 100, 0.01, 1e-30


def transport(cost: Tensor, temperature: float = 0.1) -> Tensor:
    """Return how much of each source each target receives, (K, M, C) float32, 1 for each pair in total.

    Rows and columns are scaled in turn until the mean change of the rows' factors over all pairs is below 0.01, so that
    pairs end together, or 100 times.

    Source: Cuturi (NeurIPS 2013), arXiv 1306.0895.

    Args:
        cost: (K, M, C) float32.
        temperature: What costs are divided by, above 0.
    """
    kernel = (-cost / temperature).exp()
    rows, columns = torch.ones_like(cost[:, :, :1]), torch.ones_like(cost[:, :1])
    for _ in range(_ITERATIONS):
        before = rows
        rows = 1 / (cost.shape[1] * (kernel * columns).sum(2, keepdim=True).clamp_min(_TINY))
        columns = 1 / (cost.shape[2] * (kernel * rows).sum(1, keepdim=True).clamp_min(_TINY))
        if float((rows - before).abs().mean()) < _TOLERANCE:
            break
    return rows * kernel * columns


def gather_over_time(values: Tensor, sizes: list[int], segments: list[int], keep: float) -> tuple[Rows, Tensor]:
    """Keep the tokens of each segment's first frame and unusual ones of later frames, and gather the others.

    The others are spread over the tokens of the first frame by `transport`, frame after frame, at a cost that grows
    with the frames in between; unusual are those that would be spread most evenly. The tokens of the first frame come
    once more at the end, as means with what they have gathered.

    Source: AOT, arXiv 2603.01400.

    Args:
        values: (N, D) float32, frame after frame.
        sizes: Tokens of each frame, at least 1.
        segments: Frames of each segment.
        keep: Fraction of each later frame that stays, above 0 and at most 1.

    Returns:
        Rows over the N tokens, and for each the token whose place it takes.
    """
    starts = [sum(sizes[:frame]) for frame in range(len(sizes) + 1)]
    rows, places, first = [], [], 0
    for length in segments:
        kept, gathered = _gather_segment(values, starts[first : first + length + 1], keep)
        rows.append(Rows.of(kept))
        places.append(kept)
        if gathered is not None:
            rows.append(gathered)
            places.append(kept[: len(gathered)])
        first += length
    return stacked(rows), torch.cat(places)


def _gather_segment(values: Tensor, starts: list[int], keep: float) -> tuple[Tensor, Rows | None]:
    """Choose the tokens of one segment, (n,) int64, and the means that the first frame gathers; None for one frame.

    Args:
        values: (N, D) float32, of the whole video.
        starts: The first token of each frame of the segment, and the end of the last.
        keep: See `gather_over_time`.
    """
    begin, end, stop = starts[0], starts[1], starts[-1]
    current, factors = values[begin:end], torch.eye(end - begin, stop - begin, device=values.device)
    stays = [torch.arange(begin, end, device=values.device)]
    for offset in range(1, len(starts) - 1):
        here = slice(starts[offset], starts[offset + 1])
        spread = _spread(values[here], current, offset)  # (n, K)
        confidence = spread.amax(1)
        rank = math.ceil(Fraction(keep).limit_denominator(10**9) * (len(confidence) - 1))
        is_usual = confidence >= confidence.sort().values[rank]  # as `quantile` in exact arithmetic
        stays.append(torch.arange(here.start, here.stop, device=values.device)[~is_usual])
        taken = spread * is_usual[:, None]
        factors[:, here.start - begin : here.stop - begin] = taken.T
        scale = 1 / (1 + taken.sum(0)[:, None])
        current, factors = (current + taken.T @ values[here]) * scale, factors * scale
    if len(starts) == 2:
        return stays[0], None
    row, column = factors.nonzero(as_tuple=True)
    return torch.cat(stays), Rows.of_entries(row, column + begin, factors[row, column], end - begin)


def _spread(values: Tensor, targets: Tensor, offset: int) -> Tensor:
    """Return the share of each value (n, D) of a frame `offset` frames later that each target receives (K, D)."""
    cosine = F.normalize(values, dim=-1) @ F.normalize(targets, dim=-1).mT
    cost = 1 - cosine.clamp(-1 + 1e-6, 1 - 1e-6)
    moved = transport((cost - cost.min())[None] * (1 - math.exp(-(offset**2) / (2 * 1.5**2 + 1e-9))))[0]
    return moved / moved.sum(1, keepdim=True)
