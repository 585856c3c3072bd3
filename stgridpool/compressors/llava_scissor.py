"""LLaVA-Scissor: connected components of like tokens, in every frame and then in the whole video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.components import count_components, merge_components
from stgridpool.algorithms.sets import Sets
from stgridpool.algorithms.threshold_search import highest_threshold
from stgridpool.evidence import Evidence
from stgridpool.options import choice, number
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.scorer import BUDGETS, Budgeted
from stgridpool.video_tokens import VideoTokens

RELEASED_THRESHOLD = 0.9
_PROBES, _ALWAYS = 10, 1 << 24
"""Thresholds tried for the whole video, and cosines between means that they may take in any case."""


@dataclass(frozen=True)
class LLaVAScissor(Budgeted):
    """Average connected components of tokens whose cosine is above a threshold: of each frame, then of those means.

    Then every token of the video joins the component with the most similar mean (the first of equals), which becomes
    the mean of its own mean and of the tokens that joined. A component takes the place of its token with most
    neighbours, in the video as in the frame.

    The released code takes a threshold and keeps one token per component. For a budget we find the highest
    threshold with at most that many components; then the tokens least like the component that they would join stay
    alone until the budget is met exactly. It is the highest at which the components of frames alone are few enough, or
    lies above it; up to 10 are tried there. Each takes all cosines between the means of frames' components; one that
    would make more than there are pairs of tokens in all (16 million in any case) counts as too high. Cosines within
    frames, between means, and between tokens and components are computed: O(T N^2 D) and O(T N C D) for C components.

    Source: LLaVA-Scissor, arXiv 2506.21862, and its released code. ``released`` takes a threshold only, 0.9 by default,
    like the code; ``corrected``, the default, takes a budget as well. To find components, the code samples tokens if
    there are more than about 3,300, and then loses some; here components are exact.

    Attributes:
        preset: "corrected" or "released", see above.
        threshold: In place of a budget, the cosine above which tokens are neighbours, -1 to 1.

    Raises:
        ValueError: If an option is out of its range, a budget is given in two ways, or ``released`` gets one.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("threshold",)
    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released")

    preset: str = "corrected"
    threshold: float | None = None

    def __post_init__(self) -> None:
        choice("preset", self.preset, self.PRESETS)
        if self.preset == "released" and not self._given((*BUDGETS, "threshold")):
            object.__setattr__(self, "threshold", RELEASED_THRESHOLD)
        super().__post_init__()
        if self.preset == "released" and self.threshold is None:
            raise ValueError(f"preset='released' takes threshold in place of a budget, got {self._given(BUDGETS)}")
        if self.threshold is not None:
            object.__setattr__(self, "threshold", number("threshold", self.threshold, -1, 1))

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """See `Compressor.planned_count`; None with a threshold."""
        return super().planned_count(shape, total) if self.threshold is None else None

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Find components, and assign every token to one."""
        del evidence
        features = tokens.features.float()
        sets = Sets.within(tokens, "frame")
        cosines = _cosines(features, sets)
        if self.threshold is not None:
            found = _components_of_video(features, sets, cosines, self.threshold)
            return _with_tokens(features, found, len(found))
        budget = self.count(tokens)
        found = _components_of_video(features, sets, cosines, _threshold(features, sets, cosines, budget))
        return _with_tokens(features, found, budget)


def _cosines(features: Tensor, sets: Sets) -> Tensor:
    """Return cosines (K, R, R) between the members of each set, -inf where one is missing."""
    unit = F.normalize(features, dim=-1)[sets.index]
    return (unit @ unit.mT).masked_fill_(~(sets.is_there[:, :, None] & sets.is_there[:, None]), -torch.inf)


def _threshold(features: Tensor, sets: Sets, cosines: Tensor, budget: int) -> Tensor:
    """Find the highest threshold with at most `budget` components, among those that are tried; see `LLaVAScissor`."""
    allowed = max(_ALWAYS, len(features) * (len(features) - 1) // 2)  # cosines between means

    def count_of_frames(threshold: Tensor) -> Tensor:
        return count_components(cosines > threshold, sets.is_there)

    def count(threshold: Tensor) -> Tensor:
        nonlocal allowed
        means = int(count_of_frames(threshold))
        if means**2 > allowed:
            return torch.tensor(budget + 1)
        allowed -= means**2
        _, joined, whole = _means_of_frames(features, sets, cosines, threshold)
        return count_components(joined, whole.is_there)

    low = highest_threshold(count_of_frames, budget, torch.tensor(-2.0), torch.tensor(1.0))
    return highest_threshold(count, budget, low, torch.tensor(1.0), _PROBES)


def _components_of_video(features: Tensor, sets: Sets, cosines: Tensor, threshold: Tensor | float) -> Plan:
    """Plan of the components of the means of frames' components."""
    of_frames, joined, whole = _means_of_frames(features, sets, cosines, threshold)
    return of_frames.then(merge_components(joined, whole))


def _means_of_frames(
    features: Tensor, sets: Sets, cosines: Tensor, threshold: Tensor | float
) -> tuple[Plan, Tensor, Sets]:
    """Return the plan of frames' components, which of their means are neighbours (1, M, M), and the set of all M."""
    of_frames = merge_components(cosines > threshold, sets)
    means = of_frames.apply(features)
    whole = Sets.of(torch.zeros_like(of_frames.anchor), torch.tensor([len(means)]))
    return of_frames, _cosines(means, whole) > threshold, whole


def _with_tokens(features: Tensor, found: Plan, budget: int) -> Plan:
    """Plan of components with the tokens that join them, and of single tokens that fill the budget.

    Args:
        features: (N, D) float32.
        found: Of the components.
        budget: Tokens to leave, at least as many as components.
    """
    unit = F.normalize(features, dim=-1)
    similarity, goes_to = (unit @ F.normalize(found.apply(features), dim=-1).mT).max(1)
    alone = similarity.index_fill(0, found.anchor, torch.inf).argsort(stable=True)[: budget - len(found)]
    components = torch.arange(len(found), device=alone.device)
    stays = torch.ones_like(goes_to, dtype=torch.bool).index_fill(0, alone, False).nonzero().flatten()
    row = torch.cat([components, goes_to[stays], len(found) + torch.arange(len(alone), device=alone.device)])
    sources = torch.cat([len(features) + components, stays, alone])
    counts = torch.zeros(budget, dtype=torch.int64, device=row.device).scatter_add(0, row, torch.ones_like(row))
    anchor, order = torch.cat([found.anchor, alone]).sort()
    rows = Rows.of_entries(order.argsort()[row], sources, 1 / counts[row], budget)
    return Plan(rows, len(features), anchor, made=(found.rows,))
