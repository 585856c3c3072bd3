"""Plain resizing to a budget: what a method has to beat at equal length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch

from stgridpool.evidence import Evidence
from stgridpool.frames.exact_resizing import resizing_to, row_lengths
from stgridpool.frames.layout import lay_out
from stgridpool.options import choice
from stgridpool.plan import Plan, Shape
from stgridpool.rows import stacked
from stgridpool.scorer import Budgeted, equal_shares
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
        shares = self._shares(shape)
        if min(shares) != max(shares):
            return None
        lengths = row_lengths(shape[1:], shares[0])
        return None if len(set(lengths)) > 1 else (shape[0], len(lengths), lengths[0])

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Resize all frames of the same share by one pattern."""
        device, shape, mode = tokens.maps().device, tokens.shape, MODES[self.mode]
        shares = self._shares(shape)
        edges = [0, *(index for index, (one, two) in enumerate(pairwise(shares), 1) if one != two), shape[0]]
        area, rows, anchors = math.prod(shape[1:]), [], []
        for first, end in pairwise(edges):
            if not shares[first]:
                continue
            laid = lay_out(resizing_to(shape[1:], shares[first], mode), (end - first, *shape[1:]), device)
            rows.append(laid.rows.moved(laid.rows.sources + first * area))
            anchors.append(laid.anchor + first * area)
        return Plan(stacked(rows), len(tokens), torch.cat(anchors), shape=self.planned_shape(shape))

    def _shares(self, shape: Shape) -> list[int]:
        sizes = torch.full((shape[0],), math.prod(shape[1:]))
        return equal_shares(sizes, self.budget.count(shape) or 1).tolist()
