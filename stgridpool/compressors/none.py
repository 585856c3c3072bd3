"""No compression: the baseline that keeps every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stgridpool.compressor import Compressor
from stgridpool.evidence import Evidence
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class NoCompression(Compressor):
    """Keep every token, unchanged: the baseline to compare methods with."""

    without_budget: ClassVar[str] = "it keeps everything"
    needs_maps: ClassVar[bool] = False

    def planned_shape(self, shape: Shape) -> Shape:
        """Return the source lattice."""
        return shape

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of source tokens."""
        return super().planned_count(shape) if total is None else total

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep every token."""
        return Plan.keep_all(len(tokens), tokens.features.device, tokens.shape if tokens.cell is None else None)
