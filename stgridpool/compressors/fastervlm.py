"""FasterVLM: pruning by the attention of the vision tower."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stgridpool.evidence import IMPORTANCE, Evidence, Need
from stgridpool.options import choice
from stgridpool.scorer import Scorer
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class FasterVLM(Scorer):
    """Keep the tokens of each frame that receive the most attention in the vision tower; nothing is merged.

    The released code uses the attention of CLIP's class token, ``importance="class"``, and rounds a ratio down for
    each frame, not for the video. SigLIP, the tower of LLaVA-Video and LLaVA-OneVision, has no class token; by default
    we use the attention that a patch receives from all patches instead.

    Source: FasterVLM, arXiv 2412.01818.

    Attributes:
        importance: The attention that ranks tokens, averaged over heads: "received" from all patches, of the "class"
            token, or of SigLIP's "pool_head".

    Raises:
        ValueError: If an option is out of its range.
    """

    importance: str = "received"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("importance", self.importance, IMPORTANCE)

    @property
    def needs(self) -> frozenset[Need]:
        """The attention that `importance` names."""
        return frozenset({IMPORTANCE[self.importance]})

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Return the attention that each token receives."""
        return evidence[IMPORTANCE[self.importance]]
