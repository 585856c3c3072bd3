"""HoliTom: what stays the same over time is merged, the rest pruned; and once more inside the language model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.density_peaks import nearest_peaks, peak_scores, peaks, scaled_distances
from stgridpool.algorithms.segments import segment_of_frames
from stgridpool.algorithms.static_places import most_alike_places, segment_means, spread_over_frames
from stgridpool.algorithms.temporal_similarity import cosines_of_neighbours
from stgridpool.budget import share_out
from stgridpool.compressor import Compressor
from stgridpool.compressors.holitom.inner import HoliTomInner
from stgridpool.compressors.holitom.windows import weakest_similarity, window_lengths
from stgridpool.evidence import IMPORTANCE, Evidence, Need
from stgridpool.options import choice, number
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.scorer import highest_per_group
from stgridpool.two_halves import TwoHalves
from stgridpool.video_tokens import VideoTokens

NEIGHBOURS = 7


@dataclass(frozen=True)
class HoliTom(TwoHalves):
    """Merge places that stay the same in a window of frames, prune the others by attention; then merge inside.

    Before the language model: the video is cut into windows so that as many tokens as possible repeat the first frame
    of their window; a place repeats if the cosine from each frame to the next is above `threshold`. Such static places
    become their mean over the window, in its first frame. The budget is shared out over the static places of each
    window and the other, dynamic tokens of each frame, in proportion to what is there. Of the dynamic tokens, the ones
    with the most attention in the vision tower remain; static ones are merged into density peaks, ``self_weight * peak
    + (1 - self_weight) * mean of the others``. Inside it: as in `fastv`, but each token that is not kept is merged into
    the most similar token that is.

    Source: HoliTom (NeurIPS 2025), arXiv 2505.21334. ``corrected``, the default, differs from its released code, which
    ``released`` equals: the code rounds in each window and frame, so that it misses a budget by a few tokens, and by
    many where much repeats; here the budget is exact, and in such videos the places that change most count as dynamic.
    It lets the number of peaks decide how many neighbours count, at most 7; here 7 count. Inside, it merges in pairs,
    one after the other; here it takes the mean. Its merging of dynamic tokens crashes, so it is not offered here. The
    model inserts newlines, not the method.

    Attributes:
        preset: "corrected" or "released", see above.
        importance: Attention "received" from all patches, of the "class" token, or of SigLIP's "pool_head".
        threshold: Cosine above which a place stays the same, -1 to 1; published: 0.8, and 0.65 at a tenth of the
            tokens.
        self_weight: See above, 0 to 1.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released")
    released_layer: ClassVar[tuple[int, int]] = (18, 28)

    preset: str = "corrected"
    importance: str = "received"
    threshold: float = 0.8
    self_weight: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)
        choice("importance", self.importance, IMPORTANCE)
        number("threshold", self.threshold, -1, 1)
        number("self_weight", self.self_weight, 0, 1)

    @property
    def front_needs(self) -> frozenset[Need]:
        """The attention that `importance` names."""
        return frozenset({IMPORTANCE[self.importance]})

    def inner(self, layer: int) -> Compressor:
        """Merge what the last token of the prompt hardly attends to."""
        return HoliTomInner(self.inner_retention, layer=layer, is_running=self.preset == "released")

    def planned_front(self, shape: Shape, total: int | None) -> int | None:
        """Return the budget; the released form misses it by what the video decides."""
        return super().planned_front(shape, total) if self.preset == "corrected" else None

    def plan_front(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Find what stays the same, merge it, and prune the rest."""
        maps, count = tokens.maps().flatten(1, 2), self.count(tokens)  # (T, N, D)
        frames, area, _ = maps.shape
        similarity = cosines_of_neighbours(maps)
        lengths = window_lengths(similarity > self.threshold)
        strength = weakest_similarity(similarity, lengths)
        strength = strength.where(strength > self.threshold, -torch.inf)
        most_saved = len(tokens) - count if self.preset == "corrected" else len(tokens)
        is_static = most_alike_places(strength, lengths, most_saved)
        window = segment_of_frames(lengths).to(maps.device)
        is_dynamic = ~is_static[window]
        sizes = torch.cat([is_static.sum(1), is_dynamic.sum(1)]).cpu()
        static, dynamic = self._quotas(sizes, count, len(tokens), len(lengths)).split([len(lengths), frames])
        attention = evidence[IMPORTANCE[self.importance]].view(frames, area)
        kept = highest_per_group(attention.masked_fill(~is_dynamic, -torch.inf).flatten(), tokens.frames(), dynamic)
        row, source, weight = self._merged(maps, lengths, is_static, static)
        anchor, row = torch.cat([kept, row]).unique(return_inverse=True)
        weights = torch.cat([torch.ones(len(kept), device=maps.device), weight])
        return Plan(Rows.of_entries(row, torch.cat([kept, source]), weights, len(anchor)), len(tokens), anchor)

    def _quotas(self, sizes: Tensor, count: int, num_tokens: int, num_windows: int) -> Tensor:
        """Share the budget out over sets of `sizes` (S + T,): static places of windows, dynamic tokens of frames."""
        if self.preset == "corrected":
            return share_out(count, sizes, sizes)
        asked_for = count / num_tokens if self.retention is None else self.retention
        ratio = min(1.0, asked_for / (int(sizes.sum()) / num_tokens))
        exact = [ratio * size for size in sizes.tolist()]
        return torch.tensor([round(n) if number < num_windows else math.ceil(n) for number, n in enumerate(exact)])

    def _merged(
        self, maps: Tensor, lengths: Tensor, is_static: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Merge the static places of each window into `counts` (S,) peaks.

        Args:
            maps: (T, N, D).
            lengths: (S,) int64 on the CPU, frames of each window.
            is_static: (S, N) bool.
            counts: (S,) int64 on the CPU.

        Returns:
            Entries (E,): the token whose place a peak takes, a token merged into it, and its weight.
        """
        chosen = counts.nonzero().flatten()
        if not len(chosen):
            empty = counts.new_empty(0).to(maps.device)
            return empty, empty, maps.new_empty(0, dtype=torch.float32)
        is_there = is_static[chosen.to(maps.device)]
        distances = scaled_distances(segment_means(maps, lengths, chosen), is_there)
        neighbours = counts[chosen].clamp(1, NEIGHBOURS) if self.preset == "released" else NEIGHBOURS
        places, is_taken = peaks(peak_scores(distances, is_there, neighbours), counts[chosen])
        peak = places.gather(1, nearest_peaks(distances, places, is_taken))  # (S', N), the peak that each place joins
        others = torch.zeros_like(peak).scatter_add(1, peak, is_there.long()) - 1
        own = torch.full(peak.shape, self.self_weight, device=maps.device).where(others > 0, 1)
        share = (1 - own.gather(1, peak)) / others.gather(1, peak).clamp_min(1)
        share = own.where(peak == torch.arange(peak.shape[1], device=maps.device), share)
        return spread_over_frames(peak, share, is_static, lengths, chosen)
