"""ST-SimDiff: like tokens go before the first decoder layer, those that the prompt does not attend to later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch

from stgridpool.budget import exact_part
from stgridpool.compressor import POSITIONS, Compressor, Step, compress_tokens
from stgridpool.compressors.st_simdiff.graph import (
    DIRECTIONS,
    exact_drops,
    like_neighbours,
    order_of_members,
    released_drops,
)
from stgridpool.evidence import Evidence, Need, QueryAttention
from stgridpool.layer_average import RELEASED_DEPTH, OverLayers, released_ratio
from stgridpool.options import choice, number, whole_number
from stgridpool.plan import Plan
from stgridpool.scorer import highest
from stgridpool.video_tokens import VideoTokens

SCORES = ("pairs", "size")


@dataclass(frozen=True)
class STSimDiff(OverLayers):
    """Drop tokens that their component of a graph of like neighbours can spare; then prune by attention.

    Before layer 0, neighbours in time and space are joined if their cosine reaches `similarity`. Components of the
    graph whose members are most alike come first; of each as large a part goes as the budget wants to be rid of, those
    whose mean cosine with all members is lowest. Tokens whose cosine with the one before them is below `event` stay,
    and so do those that are joined to none. Before `layer` those tokens remain that the last token of the prompt
    attends to most in the layer before, as many as meet the mean over all layers, rounded down.

    Only that mean is met exactly: how many tokens the first layers hold depends on the video, so that there is no
    budget in tokens.

    Source: https://github.com/bingjunluo/ST-SimDiff. ``released`` follows that code, which drops pairs and triples
    whole; stops at a component that does not fit into what may still go, so that nothing goes in a still video; counts
    one layer before the cut, not two; rounds the number of tokens kept to the nearest; and assumes 28 layers, whatever
    the model. ``corrected``, the default, does none of this. Both differ from the code in three ways. They act before
    layer 2, not after the attention of layer 1. Newlines, which the code has in its graph, are not in theirs. And of
    equal tokens, ``corrected`` drops the later first and ``released`` the earlier, where in the code rounding decides.

    Attributes:
        preset: "corrected" or "released", see above.
        layer_average: Mean retention over all layers of the language model, above ``layer / depth`` and at most 1.
        similarity: Cosine from which on tokens are joined, -1 to 1.
        event: Cosine below which a token is new, -1 to 1.
        directions: Neighbours that are joined: "time", "right", "below".
        score: How alike a component is: the mean cosine of its "pairs", or a sum that grows with its "size".
        layer: The decoder layer before which tokens are pruned, 1 to 1000.
        positions: Where the remaining tokens stand, see `Step`.
        depth: Layers of the language model, 1 to 1000; `for_depth` sets it.

    Raises:
        ValueError: If an option is out of its range.
    """

    released_miss: ClassVar[str] = "counts one layer before its cut"

    similarity: float = 0.8
    event: float = 0.2
    directions: tuple[str, ...] = DIRECTIONS
    score: str = "pairs"
    layer: int = 2
    positions: str = "survive"

    def __post_init__(self) -> None:
        super().__post_init__()
        number("similarity", self.similarity, -1, 1)
        number("event", self.event, -1, 1)
        if not isinstance(self.directions, list | tuple):
            raise ValueError(f"directions must be a list of {', '.join(DIRECTIONS)}, got {self.directions!r}")
        object.__setattr__(self, "directions", tuple(choice("directions", one, DIRECTIONS) for one in self.directions))
        choice("score", self.score, SCORES)
        whole_number("layer", self.layer, 1, 1000)
        choice("positions", self.positions, POSITIONS)

    def check_average(self) -> None:
        """Check that the mean allows for as many layers of all tokens as there are before `layer`.

        Raises:
            ValueError: If these alone may hold more.
        """
        depth = self.reckoned_depth
        if self.layer_average * depth <= self.layer:
            raise ValueError(
                f"layer_average must be above {self.layer}/{depth}, since nothing may go before layer "
                f"{self.layer} of {depth}, got {self.layer_average}: ask for more or choose an earlier layer"
            )

    def acting(self) -> tuple[Step, ...]:
        """One before the first layer, and one before `layer`."""
        return (
            Step(STSimDiffGraph(self), 0, self.positions),
            Step(STSimDiffCut(self), self.layer, self.positions),
        )

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Drop, then prune."""
        return compress_tokens(self, tokens, evidence)[1]


@dataclass(frozen=True)
class STSimDiffGraph(Compressor):
    """The first step of `STSimDiff`.

    Attributes:
        method: Its options.
    """

    method: STSimDiff

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Drop what components can spare.

        With the released preset a video without any like neighbours stays a whole lattice, by which the second step
        knows it: the code reckons for it as if there had been no first step.
        """
        method, maps = self.method, tokens.maps()
        is_released = method.preset == "released"
        graph = like_neighbours(maps, method.similarity, method.event, method.directions)
        members = order_of_members(tokens.features, graph, method.score == "size", not is_released)
        limit = 1 - method.layer_average
        if is_released:
            dropped = released_drops(members, graph.is_event, limit, len(tokens))
        else:
            most = len(tokens) - max(1, exact_part(method.layer_average, len(tokens)))
            dropped = exact_drops(members, graph.is_event, limit, most)
        if not len(dropped):
            no_members = is_released and not len(members.token)
            return Plan.keep_all(len(tokens), maps.device, tokens.shape if no_members else None)
        stays = torch.ones_like(graph.is_event).index_fill(0, dropped, False)
        return Plan.keep(stays.nonzero().flatten(), len(tokens))


@dataclass(frozen=True)
class STSimDiffCut(Compressor):
    """The second step of `STSimDiff`.

    Attributes:
        method: Its options.
    """

    needs_maps: ClassVar[bool] = False

    method: STSimDiff

    @property
    def needs(self) -> frozenset[Need]:
        """Attention of the layer before."""
        return frozenset({QueryAttention(self.method.layer - 1)})

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep what is attended to most."""
        scores = evidence[QueryAttention(self.method.layer - 1)]
        return Plan.keep(highest(scores, self._count(tokens)), len(tokens))

    def _count(self, tokens: VideoTokens) -> int:
        method, now, before = self.method, len(tokens), tokens.before[-1]
        if method.preset == "released":
            dropped = [] if tokens.cell is None else [(before - now) / before]
            return max(1, round(now * (1 - released_ratio(dropped, method.layer_average * RELEASED_DEPTH))))
        total = Fraction(method.layer_average).limit_denominator(10**9) * method.depth * before
        return min(now, max(1, math.floor((total - method.layer * now) / (method.depth - method.layer))))
