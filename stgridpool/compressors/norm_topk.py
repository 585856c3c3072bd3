"""The tokens of largest norm."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stgridpool.algorithms.token_norm import norm_order, token_norms
from stgridpool.evidence import Evidence
from stgridpool.scorer import Scorer
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class NormTopK(Scorer):
    """Keep the tokens of largest norm: the measure that norm-based spatial pooling weighs with, used to prune.

    Norms are computed in float32 whatever the dtype.

    Attributes:
        norm_order: p of ``||x||_p``, 0.25 to 64, or infinity (in JSON "inf"), which takes the largest channel.

    Raises:
        ValueError: If an option is out of its range.
    """

    norm_order: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "norm_order", norm_order(self.norm_order))

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Return the norm of each token."""
        return token_norms(tokens.features, self.norm_order)
