"""Every token, as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from stgridpool.compressor import Compressor
from stgridpool.evidence import Evidence
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class NoCompression(Compressor):
    """Keep every token: what a method has to be compared with."""

    needs_maps: ClassVar[bool] = False

    def planned_shape(self, shape: Shape) -> Shape:
        """Return the lattice itself."""
        return shape

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens itself."""
        return super().planned_count(shape) if total is None else total

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep each token."""
        order = torch.arange(len(tokens), device=tokens.features.device)
        return Plan.keep(order, len(tokens), tokens.shape if tokens.cell is None else None)
