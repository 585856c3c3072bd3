"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass

from stgridpool.evidence import Evidence
from stgridpool.frames.layout import lay_out
from stgridpool.frames.window_pooling import WindowPooling
from stgridpool.plan import Plan
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class Average(WindowPooling):
    """Replace the tokens of every window by their mean; padding is not counted.

    Source: LLaVA-NeXT, ``mm_spatial_pool_mode: average``.
    """

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Give equal weights to the tokens of every window."""
        maps = tokens.maps()
        return lay_out(self.windows(tokens.shape).pattern, tokens.shape, maps.device)
