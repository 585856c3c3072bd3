"""FastVID: the salient tokens of each frame, and density peaks of some frames that represent the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.density_peaks import peak_scores, peaks, scaled_distances
from stgridpool.algorithms.equal_rows import first_equals
from stgridpool.algorithms.segments import frame_similarity, segment_lengths
from stgridpool.budget import exact_part, share_equally, share_out
from stgridpool.evidence import IMPORTANCE, Evidence, FrameVectors, Need
from stgridpool.options import choice, number, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.scorer import Budgeted, highest_per_group
from stgridpool.video_tokens import VideoTokens

NEIGHBOURS = 4


@dataclass(frozen=True)
class FastVID(Budgeted):
    """Keep salient tokens of every frame, and merge the rest of a segment into context tokens of its anchor frames.

    The video is cut where the vectors of neighbouring frames are least alike. Frames share the budget equally. In a
    segment with a budget of n tokens ``int(n * context)`` are context tokens, the others the most salient of each
    frame, the earlier frames one more. Anchor frames are the last of the segment and every `period`-th before it; they
    share the context tokens, the later ones one more. In an anchor frame these are the density peaks among the tokens
    that are not salient. Every other token of the segment that is not salient joins the context token of most similar
    direction, once for each anchor frame. The output is ``w * itself + (1 - w) * mean of those`` with w at least
    `self_weight`. Where context tokens do not fit into the anchor frames, other frames keep more salient ones.

    Source: FastVID (NeurIPS 2025), arXiv 2503.11187. Its released code has two forms. ``released`` is that for
    LLaVA-Video, with exact counts and without its crashes: on fewer frames than segments, or budgets that do not fit.
    In that for LLaVA-OneVision, ``released_onevision``, each frame has ``int(n * context)`` context tokens, and anchor
    frames lose the remainder of their sum, so that a budget may be missed; and context tokens also count among those
    that join them. The paper's share of context tokens is 0.6, that of the code 0.4.

    Attributes:
        preset: "released" or "released_onevision", see above.
        importance: How salient a token is: SigLIP's "pool_head" as published, attention "received", or of the "class"
            token.
        frames: Vectors of frames: SigLIP's "pool_head" as published, the "mean" of features, or the "class" token.
        context: Part of the budget for context tokens, 0 to 1.
        period: Frames from one anchor frame to the next, 1 to 1000.
        segments: Smallest number of segments, 1 to 1000; a segment has a frame at least.
        threshold: Frames less alike than this are in different segments, -1 to 1.
        self_weight: See above, 0 to 1.

    Raises:
        ValueError: If an option is out of its range.
    """

    needs_maps: ClassVar[bool] = True
    PRESETS: ClassVar[tuple[str, ...]] = ("released", "released_onevision")

    preset: str = "released"
    importance: str = "pool_head"
    frames: str = "pool_head"
    context: float = 0.4
    period: int = 4
    segments: int = 8
    threshold: float = 0.9
    self_weight: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)
        choice("importance", self.importance, IMPORTANCE)
        FrameVectors(self.frames)
        number("context", self.context, 0, 1)
        whole_number("period", self.period, 1, 1000)
        whole_number("segments", self.segments, 1, 1000)
        number("threshold", self.threshold, -1, 1)
        number("self_weight", self.self_weight, 0, 1)

    @property
    def needs(self) -> frozenset[Need]:
        """Saliency of tokens and vectors of frames."""
        return frozenset({IMPORTANCE[self.importance], FrameVectors(self.frames)})

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """See `Compressor.planned_count`; the form for LLaVA-OneVision lets the segments decide."""
        return super().planned_count(shape, total) if self.preset == "released" else None

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Choose salient and context tokens, and send the rest of each segment to its context tokens."""
        maps = tokens.maps().flatten(1, 2)  # (T, N, D)
        lengths = segment_lengths(frame_similarity(evidence[FrameVectors(self.frames)]), self.segments, self.threshold)
        salient, context = self._quotas(lengths, tokens)
        kept = highest_per_group(evidence[IMPORTANCE[self.importance]], tokens.frames(), salient)
        is_salient = torch.zeros(len(tokens), dtype=torch.bool, device=kept.device).index_fill(0, kept, True)
        centres = _context_tokens(maps, ~is_salient.view(maps.shape[:2]), context)
        centre, source = _senders(maps, ~is_salient, centres, lengths, self.preset == "released_onevision")
        anchor = torch.cat([kept, *centres.values()]).sort().values
        row = torch.searchsorted(anchor, centre)
        itself = torch.arange(len(anchor), device=anchor.device)
        count = torch.zeros(len(anchor), device=anchor.device).index_add(
            0, row, torch.ones_like(row, dtype=torch.float)
        )
        own = (1 / (count + 1)).clamp_min(self.self_weight).where(count > 0, 1)
        weights = torch.cat([own, ((1 - own) / count.clamp_min(1))[row]])
        rows = Rows.of_entries(torch.cat([itself, row]), torch.cat([anchor, source]), weights, len(anchor))
        return Plan(rows, len(tokens), anchor)

    def _quotas(self, lengths: Tensor, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        """Count the salient and the context tokens of each frame, (T,) int64 both."""
        sizes = tokens.frame_sizes()
        parts = zip(
            share_equally(self.count(tokens), sizes).split(lengths.tolist()), sizes.split(lengths.tolist()), strict=True
        )
        quotas = [self._segment_quotas(share, size) for share, size in parts]
        salient, context = zip(*quotas, strict=True)
        return torch.cat(salient), torch.cat(context)

    def _segment_quotas(self, shares: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        is_anchor = torch.arange(len(shares)).flip(0) % self.period == 0
        anchors, budget = int(is_anchor.sum()), int(shares.sum())
        if self.preset == "released_onevision":
            each = torch.tensor([exact_part(self.context, share) for share in shares.tolist()])
            room = (sizes - shares + each).where(is_anchor, 0)
            return shares - each, torch.minimum(room, torch.where(is_anchor, int(each.sum()) // anchors, 0))
        context = exact_part(self.context, budget)
        salient = share_out(budget - context, torch.ones(len(sizes)), sizes)
        room = (sizes - salient).where(is_anchor, 0)
        fits = min(context, int(room.sum()))
        salient = salient + share_out(context - fits, torch.ones(len(sizes)), (sizes - salient).where(~is_anchor, 0))
        return salient, share_out(fits, torch.ones(len(sizes)), room.flip(0)).flip(0)


def _context_tokens(maps: Tensor, is_there: Tensor, counts: Tensor) -> dict[int, Tensor]:
    """Return the density peaks of each frame that has some, tokens (C,) int64 by frame.

    Args:
        maps: (T, N, D).
        is_there: (T, N) bool, the tokens that may be peaks.
        counts: (T,) int64 on the CPU, how many each frame has.
    """
    frames = counts.nonzero().flatten()
    if not len(frames):
        return {}
    chosen = frames.to(maps.device)
    distances = scaled_distances(maps[chosen], is_there[chosen])
    places, _ = peaks(peak_scores(distances, is_there[chosen], NEIGHBOURS), counts[frames])
    tokens = places + chosen[:, None] * maps.shape[1]
    return {frame: row[: int(counts[frame])] for frame, row in zip(frames.tolist(), tokens, strict=True)}


def _senders(
    maps: Tensor, is_sent: Tensor, centres: dict[int, Tensor], lengths: Tensor, own_too: bool
) -> tuple[Tensor, Tensor]:
    """Send tokens to the most similar context token of each anchor frame of their segment.

    Args:
        maps: (T, N, D).
        is_sent: (T * N,) bool, the tokens that go.
        centres: Context tokens (C,) of each anchor frame.
        lengths: (S,) int64 on the CPU, frames of each segment.
        own_too: Whether the context tokens of an anchor frame join themselves.

    Returns:
        Context tokens and the tokens sent there, (E,) int64 both.
    """
    flat, found = maps.flatten(0, 1), [(is_sent.new_empty(0, dtype=torch.int64),) * 2]
    for tokens, anchors in _segments(is_sent, centres, lengths, maps.shape[1]):
        unit = F.normalize(flat[tokens].float(), dim=-1)
        for centre in anchors:
            directions = F.normalize(flat[centre].float(), dim=-1)
            nearest = centre[first_equals(directions[None])[0, (unit @ directions.T).argmax(1)]]
            goes = torch.ones_like(tokens, dtype=torch.bool) if own_too else ~torch.isin(tokens, centre)
            found.append((nearest[goes], tokens[goes]))
    return torch.cat([centre for centre, _ in found]), torch.cat([token for _, token in found])


def _segments(
    is_sent: Tensor, centres: dict[int, Tensor], lengths: Tensor, area: int
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Go through the segments that have context tokens: the tokens sent (n,) of each, and its context tokens."""
    end = 0
    for length in lengths.tolist():
        start, end = end, end + length
        anchors = [centres[frame] for frame in range(start, end) if frame in centres]
        if anchors:
            yield is_sent[start * area : end * area].nonzero().flatten() + start * area, anchors
