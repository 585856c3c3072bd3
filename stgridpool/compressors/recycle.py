"""Any pruner as a merger: what it drops goes into the most similar token that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from stgridpool.algorithms.most_similar import most_similar, most_similar_in_set
from stgridpool.algorithms.sets import SCOPES, Sets
from stgridpool.evidence import Evidence
from stgridpool.options import choice
from stgridpool.other_method import OtherMethod
from stgridpool.plan import MergedTokensError, Plan, Shape
from stgridpool.video_tokens import VideoTokens

if TYPE_CHECKING:
    from stgridpool.equal_budget import Reference


@dataclass(frozen=True)
class Recycle(OtherMethod):
    """Keep what another method keeps, each token as the mean of itself and of the dropped ones most similar to it.

    Similar are tokens whose features have similar directions; of equally similar ones the first takes a token. Where
    and how often it acts, what it needs and how many tokens it leaves is as the other method has it.

    Attributes:
        method: Name of a pruner: a method that acts once and selects tokens.
        options: Its options, as a mapping or as pairs of name and value, the budget among them.
        scope: Where the token that takes a dropped one may be: in the same "frame", so that frames of which nothing is
            kept are lost, or anywhere in the "video".

    Raises:
        ValueError: If there is no such method or option, or the method acts several times or before the vision tower.
    """

    without_budget: ClassVar[str] = "the budget is that of its method; put it into options"

    scope: str = "frame"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("scope", self.scope, SCOPES)

    @property
    def counts_from(self) -> int:
        """See `Compressor.counts_from`."""
        return self.other.counts_from

    def at_retention(self, share: float, of: str, reference: Reference) -> Recycle:
        """See `Compressor.at_retention`."""
        return self.around(self.other.at_retention(share, of, reference))

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return what the other method leaves."""
        return self.other.planned_count(shape, total)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge each token that the other method drops.

        Raises:
            MergedTokensError: If the other method merges tokens itself.
        """
        try:
            kept = self.other.plan(tokens, evidence).kept()
        except MergedTokensError as error:
            raise MergedTokensError(
                f"recycle needs a method that selects tokens, not {self.method}: {error}"
            ) from error
        place = torch.full_like(tokens.cells(), -1)
        place[kept] = torch.arange(len(kept), device=kept.device)
        if self.scope == "frame":
            target = most_similar_in_set(tokens.features, Sets.within(tokens, "frame"), place >= 0)
            return Plan.merge(place[target].where(target >= 0, -1), kept)
        dropped = (place < 0).nonzero().flatten()
        if len(dropped):
            place[dropped] = most_similar(tokens.features, dropped, kept)
        return Plan.merge(place, kept, drops=False)
