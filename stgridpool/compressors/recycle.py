"""Any pruner as a merger: what it drops goes into the most similar token that it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from stgridpool.algorithms.most_similar import most_similar, most_similar_in_set
from stgridpool.algorithms.sets import SCOPES, Sets
from stgridpool.compressor import Compressor, Step
from stgridpool.evidence import Evidence, Need
from stgridpool.options import choice
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

if TYPE_CHECKING:
    from stgridpool.equal_budget import Reference


@dataclass(frozen=True)
class Recycle(Compressor):
    """Keep what another method keeps, each token as the mean of itself and of the dropped ones most similar to it.

    Similar are tokens whose features have similar directions; of equally similar ones the first takes a token. Where
    and how often it acts, what it needs and how many tokens it leaves is as the other method has it.

    Attributes:
        method: Name of a pruner: a method that acts once and selects tokens.
        options: Its options, as a mapping or as pairs of name and value, the budget among them.
        scope: Where the token that takes a dropped one may be: in the same "frame", so that frames of which nothing is
            kept are lost, or anywhere in the "video".

    Raises:
        ValueError: If there is no such method or option, or the method acts several times.
    """

    needs_maps: ClassVar[bool] = False

    method: str = "norm_topk"
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
    scope: str = "frame"

    def __post_init__(self) -> None:
        choice("scope", self.scope, SCOPES)
        pairs = self.options.items() if isinstance(self.options, Mapping) else self.options
        object.__setattr__(self, "options", tuple((name, value) for name, value in pairs))
        if len(self.pruner.steps()) != 1:
            raise ValueError(f"method must act once, and {self.method} acts {len(self.pruner.steps())} times")

    @cached_property
    def pruner(self) -> Compressor:
        """The other method."""
        from stgridpool.compressors import build_compressor  # noqa: PLC0415  # it imports this module

        return build_compressor(self.method, **dict(self.options))

    @property
    def counts_from(self) -> int:
        """See `Compressor.counts_from`."""
        return self.pruner.counts_from

    @property
    def needs(self) -> frozenset[Need]:
        """Return the other method's needs."""
        return self.pruner.needs

    def steps(self) -> tuple[Step, ...]:
        """Return where the other method acts."""
        return (replace(self.pruner.steps()[0], compressor=self),)

    def for_depth(self, num_layers: int) -> Recycle:
        """See `Compressor.for_depth`."""
        return self._around(self.pruner.for_depth(num_layers))

    def at_retention(self, share: float, of: str, reference: Reference) -> Recycle:
        """See `Compressor.at_retention`."""
        return self._around(self.pruner.at_retention(share, of, reference))

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return what the other method leaves."""
        return self.pruner.planned_count(shape, total)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge each token that the other method drops.

        Raises:
            ValueError: If the other method merges tokens itself.
        """
        try:
            kept = self.pruner.plan(tokens, evidence).kept()
        except ValueError as error:
            raise ValueError(f"recycle needs a method that selects tokens, not {self.method}: {error}") from error
        place = torch.full_like(tokens.cells(), -1)
        place[kept] = torch.arange(len(kept), device=kept.device)
        if self.scope == "frame":
            target = most_similar_in_set(tokens.features, Sets.within(tokens, "frame"), place >= 0)
            return Plan.merge(place[target].where(target >= 0, -1), kept)
        dropped = (place < 0).nonzero().flatten()
        if len(dropped):
            place[dropped] = most_similar(tokens.features, dropped, kept)
        return Plan.merge(place, kept, drops=False)

    def _around(self, pruner: Compressor) -> Recycle:
        given = tuple((field.name, getattr(pruner, field.name)) for field in fields(pruner) if field.init)
        return replace(self, options=given)
