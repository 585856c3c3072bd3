"""Sets of tokens, such as frames, as one batch: what is done in each set is done in all of them at once.

Letters: K sets, R members of the largest, N tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.plan import Plan, to_device
from stgridpool.rows import Rows
from stgridpool.video_tokens import VideoTokens

SCOPES = ("frame", "video")
"""The kinds of sets: every frame, or the whole video."""


@dataclass(frozen=True, eq=False)
class Sets:
    """Which tokens belong to which set, each in their order.

    Attributes:
        index: (K, R) int64, the token at each place; any token where a set has no more members.
        is_there: (K, R) bool, whether there is a member at that place.
        sizes: (K,) int64 on the CPU.
    """

    index: Tensor
    is_there: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, group: Tensor, sizes: Tensor) -> Sets:
        """Gather the members of every set.

        Args:
            group: (N,) int64, the set of each token, 0 to K - 1.
            sizes: (K,) int64 on the CPU, how many tokens each has.
        """
        places, starts = torch.arange(int(sizes.max())), sizes.cumsum(0) - sizes
        is_there = places < sizes[:, None]
        slots = (starts[:, None] + places).where(is_there, 0)
        slots, is_there = to_device((slots, is_there), group.device)
        return cls(group.argsort(stable=True)[slots], is_there, sizes)

    @classmethod
    def within(cls, tokens: VideoTokens, scope: str) -> Sets:
        """Gather the tokens of each frame (`scope` "frame") or of the whole video ("video")."""
        if scope == "video":
            return cls.of(torch.zeros_like(tokens.cells()), torch.tensor([len(tokens)]))
        sizes = tokens.frame_sizes()
        if tokens.cell is not None:
            return cls.of(tokens.frames(), sizes)
        index = tokens.cells().view(len(sizes), -1)  # frame after frame: nothing to sort
        return cls(index, torch.ones_like(index, dtype=torch.bool), sizes)

    def tokens_at(self, places: Tensor, counts: Tensor) -> Tensor:
        """Return the tokens at the first places named for each set, set after set: (sum of counts,) int64.

        Args:
            places: (K, C) int64, places in the sets.
            counts: (K,) int64 on the CPU, how many of the C count for each set, from the first on.
        """
        slots = (torch.arange(places.shape[1]) < counts[:, None]).flatten().nonzero().flatten()
        return self.index.gather(1, places).flatten()[to_device(slots, places.device)]

    def mixed(self, weights: Tensor, places: Tensor, is_row: Tensor) -> Plan:
        """Plan whose tokens are sums over the members of a set, in the order of the tokens whose places they take.

        Args:
            weights: (K, C, R) float32, the factor of each member in each sum.
            places: (K, C) int64, the place in the set that each sum takes.
            is_row: (K, C) bool, which sums there are.
        """
        which = is_row.flatten().nonzero().flatten()
        anchors, order = self.index.gather(1, places).flatten()[which].sort(stable=True)
        which = which[order]
        chosen = weights.flatten(0, 1)[which]  # (N, R)
        row, member = chosen.nonzero(as_tuple=True)
        sources = self.index[which // weights.shape[1]][row, member]
        rows = Rows.of_entries(row, sources, chosen[row, member], len(anchors))
        return Plan(rows, int(self.sizes.sum()), anchors)
