"""PruneVid's inner half: of each frame the tokens that some word of the question attends to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stgridpool.evidence import Evidence, Need, QueryAttention
from stgridpool.scorer import Scorer
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class PruneVidInner(Scorer):
    """Keep the tokens of each frame that get most attention in the layer before, from any head and question token.

    Attributes:
        layer: The decoder layer whose input is pruned.
    """

    layer: int = 1

    @property
    def needs(self) -> frozenset[Need]:
        """The largest attention of the layer before, over heads and tokens of the question."""
        return frozenset({QueryAttention(self.layer - 1, "question", "max")})

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Return that attention to each token."""
        del tokens
        return evidence[QueryAttention(self.layer - 1, "question", "max")]
