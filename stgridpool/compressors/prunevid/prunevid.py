"""PruneVid: merge what stays the same in a scene and what is alike in a frame; then prune inside by the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.density_peaks import nearest_peaks, peak_scores, peaks, scaled_distances
from stgridpool.algorithms.segments import segment_of_frames
from stgridpool.algorithms.static_places import most_alike_places, segment_means, spread_over_frames
from stgridpool.budget import BudgetError, exact_part, share_out
from stgridpool.compressor import Compressor
from stgridpool.compressors.prunevid.inner import PruneVidInner
from stgridpool.compressors.prunevid.scenes import scene_lengths
from stgridpool.evidence import Evidence, Need
from stgridpool.options import choice, number
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.two_halves import TwoHalves
from stgridpool.video_tokens import VideoTokens

NEIGHBOURS = 7
LARGEST_WHOLE = 14
"""The released code does not merge sets of up to this many tokens."""


@dataclass(frozen=True)
class PruneVid(TwoHalves):
    """Merge places that stay the same in a scene, and like tokens of a frame; then prune inside by the question.

    Before the language model: frames are clustered by density peaks of their means, and clusters become scenes, each
    one stretch of frames. A place is static in a scene if the mean cosine over all pairs of frames is above
    `threshold`; it becomes its mean, in the first frame. Static places of a scene, and the other tokens of each frame,
    are merged into density peaks, each the mean of all its members. The budget is shared out over these sets in
    proportion to their size. Inside it: the tokens of each frame with the most attention from any head and token of the
    question remain.

    Source: PruneVid (ACL Findings 2025), arXiv 2412.16117. ``corrected``, the default, differs from its released code,
    whose front half ``released`` equals: the code leaves ``int(retention * n)`` of each set of n, or all of up to 14,
    so that the video decides how many tokens remain, few where much is static; and it crashes on fewer than seven
    frames. Here the budget is exact, and in such videos the places that change most count as dynamic. Inside, the code
    also takes pruned tokens out of the cache of earlier layers, and prunes the static tokens of a scene apart from
    those of its first frame; here layers keep what they have seen, and both are one set.

    Attributes:
        preset: "corrected" or "released", see above.
        scenes: Most scenes per frame, 0 to 1, rounded down, but at least one.
        threshold: Mean cosine above which a place is static, -1 to 1.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released")
    released_layer: ClassVar[tuple[int, int]] = (11, 32)

    inner_retention: float = 0.4
    preset: str = "corrected"
    scenes: float = 0.25
    threshold: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)
        number("scenes", self.scenes, 0, 1)
        number("threshold", self.threshold, -1, 1)

    @property
    def front_needs(self) -> frozenset[Need]:
        """Nothing."""
        return frozenset()

    def inner(self, layer: int) -> Compressor:
        """Prune by the attention of the question."""
        return PruneVidInner(self.inner_retention, layer=layer)

    def planned_front(self, shape: Shape, total: int | None) -> int | None:
        """Return the budget; with the released form the video decides."""
        return super().planned_front(shape, total) if self.preset == "corrected" else None

    def plan_front(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Find scenes and what is static in them, and merge both kinds of tokens.

        Raises:
            BudgetError: If the released form would leave no token.
        """
        del evidence
        maps, count = tokens.maps().flatten(1, 2), self.count(tokens)  # (T, N, D)
        means = torch.stack([frame.float().mean(0) for frame in maps])
        lengths = scene_lengths(means, max(1, exact_part(self.scenes, len(maps))), NEIGHBOURS)
        strength = _similarity(maps, lengths)
        strength = strength.where(strength > self.threshold, -torch.inf)
        most_saved = len(tokens) - count if self.preset == "corrected" else len(tokens)
        is_static = most_alike_places(strength, lengths, most_saved)
        is_dynamic = ~is_static[segment_of_frames(lengths).to(maps.device)]
        sizes = torch.cat([is_static.sum(1), is_dynamic.sum(1)]).cpu()
        static, dynamic = self._quotas(sizes, count, len(tokens)).split([len(lengths), len(maps)])
        entries = [_of_frames(maps, is_dynamic, dynamic), _of_scenes(maps, is_static, static, lengths)]
        row, source, weight = (torch.cat(parts) for parts in zip(*entries, strict=True))
        anchor, row = row.unique(return_inverse=True)
        return Plan(Rows.of_entries(row, source, weight, len(anchor)), len(tokens), anchor)

    def _quotas(self, sizes: Tensor, count: int, num_tokens: int) -> Tensor:
        if self.preset == "corrected":
            return share_out(count, sizes, sizes)
        ratio = count / num_tokens if self.retention is None else self.retention
        quotas = [size if size <= LARGEST_WHOLE else int(ratio * size) for size in sizes.tolist()]
        if not any(quotas):
            raise BudgetError(
                f"prunevid with preset='released' rounds each set of tokens down, so that a budget of {count} of "
                f"{num_tokens} leaves none: ask for more or choose preset='corrected'"
            )
        return torch.tensor(quotas)


def _similarity(maps: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean cosine (S, N) of each place over all pairs of frames of a scene; -inf in one of one frame."""
    found = []
    for part in maps.split(lengths.tolist()):
        unit = sum(
            (F.normalize(frame.float(), dim=-1) for frame in part), torch.zeros_like(part[0], dtype=torch.float32)
        )
        norms = sum(((frame != 0).any(-1).float() for frame in part), torch.zeros_like(unit[:, 0]))
        pairs = len(part) * (len(part) - 1)
        found.append((unit.square().sum(-1) - norms) / pairs if pairs else torch.full_like(norms, -torch.inf))
    return torch.stack(found)


def _clusters(values: Tensor, is_there: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Merge sets (K, N, D) into `counts` (K,) peaks: the place that each member joins, and its weight, (K, N)."""
    distances = scaled_distances(values, is_there)
    places, is_taken = peaks(peak_scores(distances, is_there, NEIGHBOURS), counts)
    peak = places.gather(1, nearest_peaks(distances, places, is_taken))
    sizes = torch.zeros_like(peak).scatter_add(1, peak, is_there.long())
    return peak, 1 / sizes.gather(1, peak).clamp_min(1)


def _of_frames(maps: Tensor, is_dynamic: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return entries of the peaks of frames, as `spread_over_frames` does of those of scenes."""
    chosen = counts.nonzero().flatten().to(maps.device)
    if not len(chosen):
        return chosen, chosen, maps.new_empty(0, dtype=torch.float32)
    peak, weight = _clusters(maps[chosen], is_dynamic[chosen], counts[counts > 0])
    starts = chosen[:, None] * maps.shape[1]
    is_source = is_dynamic[chosen]
    source = starts + torch.arange(maps.shape[1], device=maps.device)
    return (starts + peak)[is_source], source[is_source], weight[is_source]


def _of_scenes(maps: Tensor, is_static: Tensor, counts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    chosen = counts.nonzero().flatten()
    if not len(chosen):
        return chosen.to(maps.device), chosen.to(maps.device), maps.new_empty(0, dtype=torch.float32)
    is_there = is_static[chosen.to(maps.device)]
    peak, weight = _clusters(segment_means(maps, lengths, chosen), is_there, counts[chosen])
    return spread_over_frames(peak, weight, is_static, lengths, chosen)
