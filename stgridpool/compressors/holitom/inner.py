"""HoliTom's inner half: tokens that the prompt hardly attends to are merged into those that it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.algorithms.most_similar import most_similar
from stgridpool.evidence import Evidence, Need, QueryAttention
from stgridpool.plan import Plan
from stgridpool.scorer import Budgeted, highest
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class HoliTomInner(Budgeted):
    """Keep the tokens that the prompt's last token attends to most, and merge each other one into the most similar.

    Attributes:
        layer: The decoder layer whose input is compressed; attention is that of the layer before.
        is_running: Whether tokens are merged one after the other, each time to the mean of the two, as in the released
            code: the last one weighs a half, the one before a quarter. Otherwise it is the mean of all.
    """

    layer: int = 1
    is_running: bool = False

    @property
    def needs(self) -> frozenset[Need]:
        """Attention of the layer before."""
        return frozenset({QueryAttention(self.layer - 1)})

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep, and merge the others; of equally similar ones into the first."""
        anchor = highest(evidence[QueryAttention(self.layer - 1)], self.count(tokens))
        is_kept = torch.zeros(len(tokens), dtype=torch.bool, device=anchor.device).index_fill(0, anchor, True)
        dropped = (~is_kept).nonzero().flatten()
        group = torch.empty_like(tokens.cells()).index_copy(0, anchor, torch.arange(len(anchor), device=anchor.device))
        group[dropped] = most_similar(tokens.features, dropped, anchor)
        return Plan.merge(group, anchor, self._weights(group, dropped) if self.is_running else None, drops=False)

    def _weights(self, group: Tensor, dropped: Tensor) -> Tensor:
        """Return the factor (N,) of each token in the running mean that is its group."""
        joined = torch.bincount(group[dropped], minlength=int(group.max()) + 1)
        order = dropped[group[dropped].argsort(stable=True)]  # by group, ascending in each
        rank = torch.arange(len(order), device=order.device) - (joined.cumsum(0) - joined)[group[order]]
        halvings = joined[group].index_copy(0, order, joined[group[order]] - rank)
        return torch.exp2(-halvings.float())
