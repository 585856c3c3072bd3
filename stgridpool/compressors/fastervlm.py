"""FasterVLM: the tokens that the vision tower's own attention points at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stgridpool.evidence import IMPORTANCE, Evidence, Need
from stgridpool.options import choice
from stgridpool.scorer import Scorer
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class FasterVLM(Scorer):
    """Keep the tokens of each frame that get the most attention in the vision tower; nothing is merged.

    The released code takes the attention of CLIP's class token, ``importance="class"``, and rounds a ratio down for
    each frame, not for the video. SigLIP, the tower of LLaVA-Video and LLaVA-OneVision, has no class token; there the
    attention that a patch receives from all others stands in for it.

    Source: FasterVLM, arXiv 2412.01818.

    Attributes:
        importance: Attention "received" from all patches, of the "class" token, or of SigLIP's "pool_head"; the mean
            over heads.

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
        """Return the attention to each token."""
        return evidence[IMPORTANCE[self.importance]]
