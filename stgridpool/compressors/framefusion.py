"""FrameFusion: merging over time before the first decoder layers, then one cut by attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

from stgridpool.algorithms.temporal_similarity import cosines_to_previous
from stgridpool.compressor import POSITIONS, Compressor, Step, compress_tokens
from stgridpool.compressors.framefusion_merge import is_most_alike, merge_chains
from stgridpool.evidence import Evidence, Need, QueryAttention
from stgridpool.layer_average import RELEASED_DEPTH, OverLayers
from stgridpool.options import choice, fraction, number, whole_number
from stgridpool.plan import Plan
from stgridpool.scorer import highest
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class FrameFusionLayer(Compressor):
    """The action of `FrameFusion` before one decoder layer: merge, cut, or nothing, depending on earlier layers.

    Attributes:
        layer: The decoder layer; its method has acted before each earlier one, too.
        merges: Whether it may still merge.
        total: Visual tokens that all layers may hold together, as a multiple of those before the first.
        depth: Layers of the language model.
        threshold: See `FrameFusion`.
        least_merged: See `FrameFusion`.
    """

    needs_maps: ClassVar[bool] = False

    layer: int = 0
    merges: bool = True
    total: float = 0.3 * RELEASED_DEPTH
    depth: int = RELEASED_DEPTH
    threshold: float = 0.6
    least_merged: float = 0.1

    @property
    def needs(self) -> frozenset[Need]:
        """Attention of the layer before, which decides the cut."""
        return frozenset({QueryAttention(self.layer - 1)} if self.layer else ())

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge while merging pays and the budget asks for it; else cut what is too much."""
        counts = (*tokens.before[len(tokens.before) - self.layer :], len(tokens))  # before each layer so far
        spent = sum(counts[1:])
        allowed = (Fraction(self.total).limit_denominator(10**9) * counts[0] - spent) / (self.depth - self.layer)
        count = max(1, math.floor(allowed))
        if count >= len(tokens):
            return Plan.keep_all(len(tokens), tokens.features.device)
        pays = all(before - after >= self.least_merged * before for before, after in pairwise(counts))
        if not self.merges or not pays:
            return Plan.keep(highest(evidence[QueryAttention(self.layer - 1)], count), len(tokens))
        similarity = cosines_to_previous(tokens)
        joins = similarity >= self.threshold
        if int(joins.sum()) > len(tokens) - count:
            joins = is_most_alike(similarity, len(tokens) - count)
        return merge_chains(tokens, joins)


@dataclass(frozen=True)
class FrameFusion(OverLayers):
    """Merge like tokens before the first decoder layers, and cut once by attention; to a mean over all layers.

    Before a layer, tokens join the one before them at their place, as in `framefusion_merge`, while each layer
    merges at least `least_merged` of its tokens. Where the next one would merge less, tokens are cut instead:
    the tokens that the prompt's last token attends to most in the layer before remain; the mean over layers sets their
    number, rounded down. If merging alone meets it earlier, the most alike are merged, and nothing is cut.

    Only the mean over layers is met exactly: how many tokens each layer gets depends on the video, so that there is no
    budget in tokens; `framefusion_merge` has one.

    Source: FrameFusion (ICCV 2025), arXiv 2501.01986, and its released code. The code merges and cuts after the
    attention of a layer, here before the next one; it rounds the tokens kept to the nearest, not down; it assumes
    28 layers whatever the model; and it merges in every layer where merging pays. There is no released preset: the
    golden numbers hold single mergings and cuts, not whole runs, and agree with ours but for that rounding.

    Attributes:
        layer_average: Mean retention over all layers of the language model, above ``1 / depth`` and at most 1.
        threshold: The smallest cosine at which a token joins, -1 to 1.
        least_merged: Fraction of its tokens below which a layer's merging is the last, 0 to 1.
        merging_layers: Maximum number of layers that merge, 1 to 1000; fewer where they would use the mean up before
            the cut.
        positions: Positions of the remaining tokens, see `Step`.
        depth: Layers of the language model, 1 to 1000; `for_depth` sets it.

    Raises:
        ValueError: If an option is out of its range, or one layer alone may hold more than the mean allows.
    """

    needs_maps: ClassVar[bool] = False

    threshold: float = 0.6
    least_merged: float = 0.1
    merging_layers: int = 4
    positions: str = "survive"

    def __post_init__(self) -> None:
        fraction("layer_average", self.layer_average)
        number("threshold", self.threshold, -1, 1)
        number("least_merged", self.least_merged, 0, 1)
        whole_number("merging_layers", self.merging_layers, 1, 1000)
        choice("positions", self.positions, POSITIONS)
        whole_number("depth", self.depth, 1, 1000)

    def check_average(self) -> None:
        """Check that the mean allows for one layer of all tokens.

        Raises:
            ValueError: If one layer alone may hold more.
        """
        if self.layer_average * self.depth <= 1:
            raise ValueError(
                f"layer_average must be above 1/{self.depth} for {self.depth} layers, since nothing may be cut before "
                f"the first has run, got {self.layer_average}"
            )

    def acting(self) -> tuple[Step, ...]:
        """One before each layer that may merge, and of the one that cuts."""
        total = self.layer_average * self.depth
        last = max(0, min(self.merging_layers, math.ceil(total) - 1))
        options = (total, self.depth, self.threshold, self.least_merged)
        layers = [FrameFusionLayer(layer, layer < last, *options) for layer in range(last + 1)]
        return tuple(Step(layer, layer.layer, self.positions) for layer in layers)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge and cut, one layer after the other."""
        return compress_tokens(self, tokens, evidence)[1]
