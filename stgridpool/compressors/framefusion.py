"""FrameFusion: merging over time before the first decoder layers, then one cut by attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

from stgridpool.algorithms.temporal_similarity import cosines_to_previous
from stgridpool.compressor import POSITIONS, Compressor, Step, compress_tokens
from stgridpool.compressors.framefusion_merge import is_most_alike, merge_chains
from stgridpool.evidence import Evidence, Need, QueryAttention
from stgridpool.layer_average import RELEASED_DEPTH, OverLayers, released_ratio
from stgridpool.options import choice, number, whole_number
from stgridpool.plan import Plan
from stgridpool.scorer import highest
from stgridpool.video_tokens import VideoTokens

MERGING_LAYERS = 4
"""Number of layers that merge, if nothing else is asked for."""


@dataclass(frozen=True)
class FrameFusionLayer(Compressor):
    """The action of `FrameFusion` before one decoder layer: merge, cut, or nothing, depending on earlier layers.

    Attributes:
        layer: The decoder layer; its method has acted before each earlier one, too.
        merges: Whether it may still merge.
        total: Visual tokens that all layers may hold together, as a multiple of those before the first.
        depth: Layers over which these are counted.
        threshold: See `FrameFusion`.
        least_merged: See `FrameFusion`.
        preset: See `FrameFusion`.
    """

    needs_maps: ClassVar[bool] = False

    layer: int = 0
    merges: bool = True
    total: float = 0.3 * RELEASED_DEPTH
    depth: int = RELEASED_DEPTH
    threshold: float = 0.6
    least_merged: float = 0.1
    preset: str = "corrected"

    @property
    def needs(self) -> frozenset[Need]:
        """Attention of the layer before, which decides the cut."""
        return frozenset({QueryAttention(self.layer - 1)} if self.layer else ())

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge while merging pays and the budget asks for it; else cut what is too much."""
        counts = (*tokens.before[len(tokens.before) - self.layer :], len(tokens))  # before each layer so far
        pays = all(before - after >= self.least_merged * before for before, after in pairwise(counts))
        merges = self.merges and pays
        count = self._released_count(counts, merges) if self.preset == "released" else self._count(counts)
        if count >= len(tokens):
            return Plan.keep_all(len(tokens), tokens.features.device)
        if not merges:
            return Plan.keep(highest(evidence[QueryAttention(self.layer - 1)], count), len(tokens))
        similarity = cosines_to_previous(tokens)
        joins = similarity >= self.threshold
        if int(joins.sum()) > len(tokens) - count:
            joins = is_most_alike(similarity, len(tokens) - count)
        return merge_chains(tokens, joins)

    def _count(self, counts: Sequence[int]) -> int:
        """Return the number of tokens that this layer and all later ones may hold, given those before each so far."""
        total = Fraction(self.total).limit_denominator(10**9) * counts[0]
        return max(1, math.floor((total - sum(counts[1:])) / (self.depth - self.layer)))

    def _released_count(self, counts: Sequence[int], merges: bool) -> int:
        """Return the same by the released code's rule; all tokens once an earlier layer dropped what it had to."""
        dropped = [(before - after) / before for before, after in pairwise(counts)]
        must = [released_ratio(dropped[:layer], self.total) for layer in range(len(counts))]
        if any(b - a >= int(part * b) for (b, a), part in zip(pairwise(counts), must, strict=False)):
            return counts[-1]
        left = counts[-1] - int(must[-1] * counts[-1]) if merges else round(counts[-1] * (1 - must[-1]))
        return max(1, left)


@dataclass(frozen=True)
class FrameFusion(OverLayers):
    """Merge like tokens before the first decoder layers, and cut once by attention; to a mean over all layers.

    Before a layer, tokens join the one before them at their place, as in `framefusion_merge`, while each layer
    merges at least `least_merged` of its tokens. Where the next one would merge less, tokens are cut instead:
    the tokens that the prompt's last token attends to most in the layer before remain; the mean over layers sets their
    number, rounded down. If merging alone meets it earlier, the most alike are merged, and nothing is cut.

    Only the mean over layers is met exactly: how many tokens each layer gets depends on the video, so that there is no
    budget in tokens; `framefusion_merge` has one.

    Source: FrameFusion (ICCV 2025), arXiv 2501.01986, and its released code. ``released`` follows that code, which
    rounds the number of tokens after a cut to the nearest, and after merging up; assumes 28 layers, whatever the model;
    and merges in every layer where merging pays. ``corrected``, the default, rounds down, takes the layers of the model
    and merges in the first `merging_layers` at most. Both differ from the code in four ways. They act before a layer,
    not after the attention of the one before it. They do not count newlines, which the code merges and cuts like other
    tokens. They keep one token where the code keeps none or stops with an error. And if the tokens above the threshold
    are exactly as many as must go, rounded down, they stop; the code goes on, and may drop one token more.

    Attributes:
        preset: "corrected" or "released", see above.
        layer_average: Mean retention over all layers of the language model, above ``1 / depth`` and at most 1.
        threshold: The smallest cosine at which a token joins, -1 to 1.
        least_merged: Fraction of its tokens below which a layer's merging is the last, 0 to 1.
        merging_layers: Maximum number of layers that merge, 1 to 1000; fewer where they would use the mean up before
            the cut. Not with ``released``, which has no such limit.
        positions: Positions of the remaining tokens, see `Step`.
        depth: Layers of the language model, 1 to 1000; `for_depth` sets it.

    Raises:
        ValueError: If an option is out of its range, or one layer alone may hold more than the mean allows.
    """

    needs_maps: ClassVar[bool] = False

    threshold: float = 0.6
    least_merged: float = 0.1
    merging_layers: int = MERGING_LAYERS
    positions: str = "survive"

    def __post_init__(self) -> None:
        super().__post_init__()
        number("threshold", self.threshold, -1, 1)
        number("least_merged", self.least_merged, 0, 1)
        whole_number("merging_layers", self.merging_layers, 1, 1000)
        if self.preset == "released" and self.merging_layers != MERGING_LAYERS:
            raise ValueError(
                f"merging_layers={self.merging_layers} needs preset='corrected'; 'released' merges in any layer"
            )
        choice("positions", self.positions, POSITIONS)

    def check_average(self) -> None:
        """Check that the mean allows for one layer of all tokens.

        Raises:
            ValueError: If one layer alone may hold more.
        """
        depth = self.reckoned_depth
        if self.layer_average * depth <= 1:
            raise ValueError(
                f"layer_average must be above 1/{depth} for {depth} layers, since nothing may be cut before the first "
                f"has run, got {self.layer_average}"
            )

    def acting(self) -> tuple[Step, ...]:
        """One before each layer that may merge, and of the one that cuts."""
        total = self.layer_average * self.reckoned_depth
        options = (total, self.reckoned_depth, self.threshold, self.least_merged, self.preset)
        if self.preset == "released":
            layers = [FrameFusionLayer(layer, True, *options) for layer in range(min(self.depth, RELEASED_DEPTH))]
        else:
            last = max(0, min(self.merging_layers, math.ceil(total) - 1))
            layers = [FrameFusionLayer(layer, layer < last, *options) for layer in range(last + 1)]
        return tuple(Step(layer, layer.layer, self.positions) for layer in layers)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge and cut, one layer after the other."""
        return compress_tokens(self, tokens, evidence)[1]
