"""Method: a compressor for a native model, with its budget resolved for each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stgridpool.adapters.adapter import Adapter
from stgridpool.adapters.places import IN_DECODER, both_ways, check_parts, check_places
from stgridpool.adapters.tower_evidence import check_tower_needs, tower_offers
from stgridpool.adapters.visual_runs import VisualRun
from stgridpool.compressor import Compressor, Step
from stgridpool.compressors import build_compressor
from stgridpool.compressors.none import NoCompression
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.equal_budget import Reference, meet
from stgridpool.evidence import Need, Question, check_offered
from stgridpool.layer_average import MEANS, OverLayers
from stgridpool.options import choice, fraction
from stgridpool.retention import DEFINITIONS


@dataclass(frozen=True)
class Method:
    """A compressor and the fraction of tokens that it should keep.

    Attributes:
        compressor: The method; None leaves the tokens of the model's own pooling. Alone, "none" means the same.
        retention: Fraction of the unmodified model's tokens to keep, above 0 and at most 1; None for the compressor's
            own budget. It is met for each video, since videos of different sizes have different counts.
        of: The definition of retention, one of `stgridpool.retention.DEFINITIONS`.

    Raises:
        ValueError: If the options are out of their range, or there is a retention but no compressor.
    """

    compressor: Compressor | None
    retention: float | None = None
    of: str = DEFINITIONS[0]
    _met: dict[Reference, Compressor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choice("of", self.of, DEFINITIONS)
        if self.retention is not None:
            fraction("retention", self.retention)
            if self.compressor is None:
                raise ValueError(f"retention={self.retention:g} needs a compressor to meet it, got none")

    @classmethod
    def of_model(
        cls,
        adapter: Adapter,
        model: Any,
        compressor: Compressor | str | None,
        retention: float | None = None,
        of: str = DEFINITIONS[0],
        **options: Any,
    ) -> Method:
        """Build a method for a model.

        Args:
            adapter: The adapter for `model`.
            model: A native model of transformers.
            compressor: A compressor, the name of one, or None.
            retention: See `Method`.
            of: See `Method`.
            **options: Options of the method, if `compressor` is a name.

        Raises:
            ValueError: If there is no such method or option, or the model cannot give it the evidence that it needs.
            TypeError: If `compressor` is none of these.
        """
        if isinstance(compressor, str):
            compressor = build_compressor(compressor, **options)
        elif options:
            raise ValueError(f"options {sorted(options)} need the name of a method, got {compressor!r}")
        if compressor is not None and not isinstance(compressor, Compressor):
            raise TypeError(f"compressor must be a Compressor, a name or None, got {type(compressor).__name__}")
        if isinstance(compressor, NoCompression):
            compressor = None
        is_settled = retention is None  # whether its budget needs no video
        if isinstance(compressor, OverLayers) and retention is not None and of in MEANS:
            compressor, is_settled = replace(compressor, layer_average=retention), True
        if compressor is not None:
            compressor = compressor.for_depth(len(model.get_decoder().layers))
            check_needs(adapter, model, compressor)
        method = cls(compressor, retention, of)
        if is_settled:
            method.inside(adapter, model, ())
        return method

    @property
    def needs(self) -> frozenset[Need]:
        """The evidence that it asks for."""
        return frozenset() if self.compressor is None else self.compressor.needs

    def steps(self, adapter: Adapter, model: Any, run: VisualRun | None = None) -> tuple[Step, ...]:
        """Return the steps for a video; without one, those of the compressor's own budget."""
        if self.compressor is None:
            return ()
        if self.retention is None or run is None:
            return self.compressor.steps()
        target = reference(adapter, model, run)
        if target not in self._met:  # some methods try hundreds of options, and every prompt asks again
            self._met[target] = meet(self.compressor, self.retention, self.of, target)
        return self._met[target].steps()

    def inside(self, adapter: Adapter, model: Any, runs: Sequence[VisualRun]) -> DecoderSteps | None:
        """Return the steps inside the language model, which all videos share; None if there are none.

        Raises:
            ValueError: If videos need different ones, or the model does not support them.
        """
        every = {tuple(step for step in self.steps(adapter, model, run) if step.is_inside) for run in runs or (None,)}
        if len(every) > 1:
            raise ValueError(
                f"{self.compressor!r} needs different budgets inside the language model for these videos: pass "
                "videos of one size together"
            )
        (steps,) = every
        if not steps:
            return None
        if self.compressor is not None and adapter.attends_both_ways:
            raise ValueError(both_ways(self.compressor, model.config.model_type))
        return DecoderSteps(TransformersDecoder(model.get_decoder(), adapter.first_layer(model)), steps)


def reference(adapter: Adapter, model: Any, run: VisualRun) -> Reference:
    """Return what retention is measured against: the tokens of the video that the unmodified model would read."""
    patches = run.visual.tokens if run.visual.patches is None else run.visual.patches
    frames, rows, columns = patches.shape[:3]
    return Reference(adapter.own_pooling(model), (rows, columns), len(model.get_decoder().layers), frames)


def check_needs(adapter: Adapter, model: Any, compressor: Compressor) -> None:
    """Check that a native model can compute the evidence that a method needs.

    Raises:
        ValueError: If it cannot; the message names what is missing.
    """
    check_places(compressor)
    check_offered(compressor.needs, {*tower_offers(adapter, model), Question, *IN_DECODER}, compressor)
    check_parts(compressor)
    check_tower_needs(adapter, model, compressor.needs)
