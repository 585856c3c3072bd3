"""ToMe: tokens merged in pairs, the most alike first, until the budget is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.bipartite import merge_pairs
from stgridpool.algorithms.sets import Sets
from stgridpool.evidence import Evidence, Need, TowerKeys
from stgridpool.options import choice
from stgridpool.plan import Plan, to_device
from stgridpool.scorer import Rounded
from stgridpool.video_tokens import VideoTokens

METRICS = ("features", "keys")


@dataclass(frozen=True)
class ToMe(Rounded):
    """Merge like tokens of each frame, or of the whole video, by bipartite soft matching.

    In each round the tokens are split alternately, and each of the first half proposes to join the one of the second
    half whose direction is most like its own (the first of equals). The best proposals are accepted, as many as the
    budget asks for, at most half of the tokens a round. Joined tokens are averaged by size, so that each output token
    is the mean of all its members; it takes the place of the token that was joined first.

    Source: ToMe (ICLR 2023), arXiv 2210.09461, as video compressors use it: on finished tokens, in as many rounds as it
    takes, not in every block of the vision tower. ``released`` merges as the baseline of STTM's tables does: after each
    round it puts what remains of the first half, the most similar first, before the second half, splits that sequence
    alternately in the next round, and rounds a retention up. ``corrected``, the default, splits the tokens in raster
    order in every round, and rounds down. Both return tokens in raster order; the baseline returns the sequence of its
    last round. A frame that gets no share of the budget is dropped.

    Attributes:
        preset: "corrected" or "released", see above.
        scope: "frame" merges within each frame, "video" across the whole video.
        metric: What must be alike: the "features" themselves, or the "keys" of the vision tower's last layer.

    Raises:
        ValueError: If an option is out of its range.
    """

    released_rounding: ClassVar[str] = "up"

    metric: str = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("metric", self.metric, METRICS)

    @property
    def needs(self) -> frozenset[Need]:
        """Keys, if they are the metric."""
        return frozenset({TowerKeys()} if self.metric == "keys" else ())

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge round after round."""
        sets = Sets.within(tokens, self.scope)
        shares = self.shares(tokens)
        metric = evidence[TowerKeys()] if self.metric == "keys" else tokens.features
        goes_to = merge_pairs(metric, sets, shares.where(shares > 0, sets.sizes), self.preset == "released")
        has_share = to_device(shares > 0, goes_to.device)
        is_kept = sets.is_there & has_share[:, None]
        return _as_plan(sets, goes_to, is_kept, bool((shares < 1).any()))


def _as_plan(sets: Sets, goes_to: Tensor, is_kept: Tensor, drops: bool) -> Plan:
    """Return the plan that merges the members `is_kept` (K, R) into the member `goes_to` (K, R) of their set."""
    root = torch.full((int(sets.sizes.sum()),), -1, device=goes_to.device)
    root[sets.index[is_kept]] = sets.index.gather(1, goes_to)[is_kept]
    itself = torch.arange(len(root), device=root.device)
    anchor = (root == itself).nonzero().flatten()
    group = torch.searchsorted(anchor, root).where(root >= 0, -1)
    return Plan.merge(group, anchor, drops=drops)
