"""Plain resizing to a budget: what a method has to beat at equal length."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from stgridpool.budget import share_equally
from stgridpool.evidence import Evidence
from stgridpool.frames.exact_resizing import resizing_to, row_lengths
from stgridpool.frames.layout import lay_out
from stgridpool.options import choice
from stgridpool.plan import Plan, Shape, to_device
from stgridpool.rows import stacked
from stgridpool.scorer import Budgeted
from stgridpool.video_tokens import VideoTokens

MODES: dict[str, Literal["linear", "area"]] = {"area": "area", "bilinear": "linear"}


@dataclass(frozen=True)
class Downsample(Budgeted):
    """Resize every frame to exactly its share of the budget.

    Frames share the budget equally, and the remainder is spread evenly over them; with less than one token per frame
    some get none. 49 of 14x14 tokens become 7x7 and 98 become 7x14, the sides that shrink the frame most evenly. Where
    no such sides have the right product, or one side would shrink more than twice as much as the other, some rows have
    one token more than others: 47 become 7 rows of 7 or 6.

    Attributes:
        mode: "area" averages the tokens that a new one covers, "bilinear" takes the four around its centre.

    Raises:
        ValueError: If an option is out of its range.
    """

    needs_maps: ClassVar[bool] = True

    mode: str = "area"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("mode", self.mode, MODES)

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return (T, H', W') if all frames get the same lattice, else None."""
        shares = self._shares(shape).tolist()
        if min(shares) != max(shares):
            return None
        lengths = row_lengths(shape[1:], shares[0])
        return None if len(set(lengths)) > 1 else (shape[0], len(lengths), lengths[0])

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Resize all frames to every size that occurs, and take of each frame its own."""
        device, shape = tokens.maps().device, tokens.shape
        share = self._shares(shape)  # (T,)
        counts = share[share > 0].unique()
        laid = [lay_out(resizing_to(shape[1:], count, MODES[self.mode]), shape, device) for count in counts.tolist()]
        if len(laid) == 1 and len(counts) == len(share.unique()):
            return replace(laid[0], shape=self.planned_shape(shape))
        starts = counts.cumsum(0) - counts  # of each size, in tokens per frame of those before
        first = starts[torch.searchsorted(counts, share)] * shape[0] + torch.arange(shape[0]) * share
        within = torch.arange(int(share.sum())) - (share.cumsum(0) - share).repeat_interleave(share)
        index = to_device(first.repeat_interleave(share) + within, device)
        anchor = torch.cat([plan.anchor for plan in laid])[index]
        return Plan(stacked([plan.rows for plan in laid]).take(index), len(tokens), anchor)

    def _shares(self, shape: Shape) -> Tensor:
        sizes = torch.full((shape[0],), math.prod(shape[1:]))
        return share_equally(self.budget.count(shape) or 1, sizes)
