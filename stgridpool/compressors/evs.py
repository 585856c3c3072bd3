"""EVS: the first frame, and then the tokens that have changed most."""

from __future__ import annotations

from dataclasses import dataclass

from stgridpool.algorithms.temporal_similarity import cosines_to_previous
from stgridpool.evidence import Evidence
from stgridpool.plan import Plan, Shape
from stgridpool.pruning_rate import RateBudgeted
from stgridpool.scorer import highest
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class EVS(RateBudgeted):
    """Keep the tokens of the whole video that changed most since the frame before; all of the first frame are new.

    The change is 1 minus the cosine with the token at the same place one frame earlier, or, among tokens that an
    earlier method has thinned out, with the last one at that place; without one a token is new. Of equal changes the
    first are kept, so a budget below a frame's tokens keeps the first rows of the first frame. `pruning_rate` never
    goes below a whole frame.

    Source: Efficient Video Sampling (NVIDIA), arXiv 2510.14624, as in vLLM.
    """

    def least(self, shape: Shape) -> int:
        """Return the tokens of one frame, which vLLM never goes below."""
        return shape[1] * shape[2]

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep the tokens that are new or changed most."""
        return Plan.keep(highest(-cosines_to_previous(tokens), self.count(tokens)), len(tokens))
