"""PyramidDrop: pruning before several layers of the language model, each time by the attention in that layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from stgridpool.budget import split_layer_average
from stgridpool.compressor import POSITIONS, Compressor, Step, compress_tokens, planned_counts
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Evidence, Need, QueryAttention
from stgridpool.options import choice, fraction, whole_numbers
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import Scorer
from stgridpool.video_tokens import VideoTokens

RELEASED_DEPTH = 32
"""Number of layers of the model for which the code was released."""


@dataclass(frozen=True)
class PyramidDropLayer(Scorer):
    """One drop of `PyramidDrop`: keep the visual tokens that the last token of the prompt attends to most in a layer.

    Attributes:
        retention: Fraction kept of the tokens before the first drop.
        layer: The decoder layer whose input is pruned.
        drops_before: Number of earlier drops of the same pyramid.
    """

    scope: str = "video"
    layer: int = 0
    drops_before: int = 0

    @property
    def needs(self) -> frozenset[Need]:
        """The attention in the layer whose input is pruned."""
        return frozenset({QueryAttention(self.layer)})

    @property
    def counts_from(self) -> int:
        """Number of steps back to the first drop, whose input the retention refers to."""
        return self.drops_before

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Return the attention that each token receives."""
        del tokens
        return evidence[QueryAttention(self.layer)]


@dataclass(frozen=True)
class PyramidDrop(Compressor):
    """Drop the visual tokens that the last token of the prompt attends to least, before several decoder layers.

    The attention comes from the queries and keys of the layer whose input is pruned, averaged over heads. Each drop
    keeps a fraction of the tokens before the first drop, rounded down, but at least 1 token.

    Source: PyramidDrop (CVPR 2025), arXiv 2410.17247, and its released code. Like that code, we number positions again
    at every drop. Unlike it, we run models with grouped heads, never cut prompts (it does at 2048 tokens by default),
    and keep one token of a short video, of which it may drop all. ``released`` drops before layers 8, 16 and 24 of any
    model, as the code does, and needs at least 25; ``corrected``, the default, drops after a quarter, a half and three
    quarters of the model's layers.

    Attributes:
        preset: "corrected" or "released", see above.
        layers: Decoder layers whose input is pruned, ascending, each from 0 to 1000; None for those of the preset.
            Until `for_depth` names the depth, it counts as 32.
        keep: Fraction kept from each of these layers on, above 0 and at most 1, in descending order.
        layer_average: Mean retention over all layers of the language model, above 0 and at most 1; `for_depth` scales
            `keep` to meet it.
        positions: How the kept tokens get their positions from there on, see `Step`.

    Raises:
        ValueError: If an option is out of its range, or layers and fractions differ in number.
    """

    needs_maps: ClassVar[bool] = False
    without_budget: ClassVar[str] = (
        "all tokens enter the language model, and its layers keep shares; set keep or layer_average"
    )

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released")

    layers: tuple[int, ...] | None = None
    keep: tuple[float, ...] = (0.5, 0.25, 0.125)
    layer_average: float | None = None
    positions: str = "reassign"
    preset: str = "corrected"

    def __post_init__(self) -> None:
        choice("preset", self.preset, self.PRESETS)
        if not isinstance(self.keep, list | tuple) or not self.keep:
            raise ValueError(f"keep must be a list of fractions, at least one, got {self.keep!r}")
        object.__setattr__(self, "keep", tuple(fraction("keep", one) for one in self.keep))
        if any(after > before for before, after in pairwise(self.keep)):
            raise ValueError(f"keep must fall from layer to layer, got {self.keep}")
        if self.layers is not None:
            object.__setattr__(self, "layers", whole_numbers("layers", self.layers, 0, 1000, 1000))
        layers = self._layers(RELEASED_DEPTH)
        if len(layers) != len(self.keep):
            raise ValueError(f"layers and keep must have the same length, got {layers} and {self.keep}")
        if any(after <= before for before, after in pairwise(layers)):
            raise ValueError(f"layers must ascend, got {layers}")
        if self.layer_average is not None:
            fraction("layer_average", self.layer_average)
        choice("positions", self.positions, POSITIONS)

    def _layers(self, num_layers: int) -> tuple[int, ...]:
        if self.layers is not None:
            return self.layers
        num_layers = RELEASED_DEPTH if self.preset == "released" else num_layers
        return num_layers // 4, num_layers // 2, num_layers * 3 // 4

    def for_depth(self, num_layers: int) -> Compressor:
        """Choose the layers, and turn `layer_average` into the fractions to keep.

        Raises:
            ValueError: If the model has no such layers, or the layers below the first drop alone exceed the average.
        """
        layers, keep = self._layers(num_layers), self.keep
        lengths = [after - before for before, after in pairwise((0, *layers, num_layers))]
        if min(lengths[1:]) <= 0:
            repair = "set layers" + (
                " or preset='corrected'" if self.preset == "released" and self.layers is None else ""
            )
            raise ValueError(f"layers must ascend and be below the model's {num_layers} layers, got {layers}: {repair}")
        if self.layer_average is not None:
            keep = split_layer_average(self.layer_average, lengths, (None, *keep))[1:]
        return replace(self, layers=layers, keep=keep, layer_average=None)

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Set `layer_average`, or scale `keep` to end in `share`. See `Compressor.at_retention`."""
        if of == "last_layer":
            return replace(self, layer_average=None, keep=tuple(min(1, k * share / self.keep[-1]) for k in self.keep))
        if of == "entering_llm":
            return super().at_retention(share, of, reference)
        return replace(self, layer_average=share)

    def steps(self) -> tuple[Step, ...]:
        """Return one step per drop, each at its layer.

        Raises:
            ValueError: If the fractions to keep depend on the number of layers, which is not known yet.
        """
        if self.layer_average is not None:
            raise ValueError(f"layer_average={self.layer_average} depends on the language model: call for_depth first")
        return tuple(
            Step(PyramidDropLayer(share, layer=layer, drops_before=number), layer, self.positions)
            for number, (layer, share) in enumerate(zip(self._layers(RELEASED_DEPTH), self.keep, strict=True))
        )

    def acting(self) -> tuple[Step, ...]:
        """Return the steps, whatever `layer_average` will make of `keep`."""
        return replace(self, layer_average=None).steps()

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Combine all drops into one plan."""
        return compress_tokens(self, tokens, evidence)[1]

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens after the last drop."""
        return planned_counts(self.steps(), shape, total)[-1]
