"""TwoHalves: a method that compresses before the language model, and once more inside it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from stgridpool.budget import split_layer_average
from stgridpool.compressor import POSITIONS, TOKENS, Compressor, Step, compress_tokens, planned_counts
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Evidence, Need
from stgridpool.options import choice, fraction, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import LayerAveraged
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class TwoHalves(LayerAveraged):
    """Base of methods of two halves; with ``inner_retention=1`` only the front half acts, which may be shared.

    Attributes:
        released_layer: The layer of the inner half in the released code, and the depth of the model that it is for;
            class attribute.
        retention: Fraction that enters the language model; of the other two budgets likewise.
        inner_retention: Fraction of the language model's input kept from `layer` on, above 0 and at most 1.
        layer: The decoder layer whose input the inner half compresses, 1 to 1000; None for `released_layer`, or as deep
            in models of another depth. It is that of the released depth until `for_depth` names another.
        positions: Positions of tokens from there on, see `Step`.
        layer_average: See `LayerAveraged`; `for_depth` turns it into `retention`, and into `inner_retention` where that
            has to give way.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    needs_maps: ClassVar[bool] = True
    released_layer: ClassVar[tuple[int, int]]

    inner_retention: float = 0.5
    layer: int | None = None
    positions: str = "survive"

    def __post_init__(self) -> None:
        super().__post_init__()
        fraction("inner_retention", self.inner_retention)
        if self.layer is not None:
            whole_number("layer", self.layer, 1, 1000)
        choice("positions", self.positions, POSITIONS)

    @property
    @abstractmethod
    def front_needs(self) -> frozenset[Need]:
        """Return the front half's needs."""

    @abstractmethod
    def plan_front(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Decide the front half; see `Compressor.plan`."""

    @abstractmethod
    def inner(self, layer: int) -> Compressor:
        """Return the inner half, which acts on the input of `layer` and leaves `inner_retention`."""

    @property
    def needs(self) -> frozenset[Need]:
        """Return the needs of both halves."""
        return self.front_needs if self.inner_retention == 1 else super().needs

    def for_depth(self, num_layers: int) -> Compressor:
        """Name the layer, and turn `layer_average` into what each half leaves.

        Raises:
            ValueError: If the model has no such layer.
        """
        layer = self._layer(num_layers)
        if not 1 <= layer < num_layers:
            raise ValueError(f"layer must be at least 1 and below the model's {num_layers} layers, got {layer}")
        if self.layer_average is None:
            return replace(self, layer=layer)
        shares = (1.0, self.inner_retention)
        front, inside = split_layer_average(self.layer_average, (layer, num_layers - layer), shares)
        return replace(self, layer=layer, layer_average=None, retention=front, inner_retention=min(1.0, inside / front))

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Set `retention`, or `layer_average` for means over layers; see `Compressor.at_retention`.

        To leave a share at the last layer, the front half leaves more, in proportion to `inner_retention`.
        """
        del reference  # shares are of what its own pooling leaves, as the method counts
        unset = replace(self, retention=share, tokens=None, tokens_per_frame=None, layer_average=None)
        if of in ("layer_average", "kv_read"):
            return replace(unset, retention=None, layer_average=share)
        if of == "last_layer":
            front = min(1.0, share / self.inner_retention)
            return replace(unset, retention=front, inner_retention=share / front)
        return unset

    def steps(self) -> tuple[Step, ...]:
        """Return where the halves act: after the checkpoint's own pooling, and before `layer`."""
        if self.inner_retention == 1:
            return (Step(self, TOKENS),)
        layer = self._layer(self.released_layer[1])
        return (Step(replace(self, inner_retention=1.0), TOKENS), Step(self.inner(layer), layer, self.positions))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Decide the front half, and then the inner one, if there is one."""
        return (
            self.plan_front(tokens, evidence)
            if self.inner_retention == 1
            else compress_tokens(self, tokens, evidence)[1]
        )

    def planned_front(self, shape: Shape, total: int | None) -> int | None:
        """Return the number of tokens that the front half leaves; None if the tokens decide."""
        return super().planned_count(shape, total)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens after the last half; None if the tokens decide."""
        if self.inner_retention == 1:
            return self.planned_front(shape, total)
        return planned_counts(self.steps(), shape, total)[-1]

    def _layer(self, num_layers: int) -> int:
        layer, depth = self.released_layer
        return max(1, layer * num_layers // depth) if self.layer is None else self.layer
