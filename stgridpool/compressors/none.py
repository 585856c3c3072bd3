"""No compression: the baseline that keeps every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stgridpool.compressor import PATCHES, TOKENS, Compressor, Step
from stgridpool.evidence import Evidence
from stgridpool.options import flag
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class NoCompression(Compressor):
    """Keep every token, unchanged: the baseline to compare methods with.

    Attributes:
        own_pooling: Whether to keep the tokens that the checkpoint's own pooling leaves, in place of those before
            it. Native models pool in any case.

    Raises:
        ValueError: If the option is neither true nor false.
    """

    without_budget: ClassVar[str] = "it keeps everything"
    needs_maps: ClassVar[bool] = False

    own_pooling: bool = False

    def __post_init__(self) -> None:
        flag("own_pooling", self.own_pooling)

    def steps(self) -> tuple[Step, ...]:
        """Return where the method acts: in place of the checkpoint's own pooling, or after it."""
        return (Step(self, TOKENS if self.own_pooling else PATCHES),)

    def planned_shape(self, shape: Shape) -> Shape:
        """Return the source lattice."""
        return shape

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of source tokens."""
        return super().planned_count(shape) if total is None else total

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep every token."""
        return Plan.keep_all(len(tokens), tokens.features.device, tokens.shape if tokens.cell is None else None)
