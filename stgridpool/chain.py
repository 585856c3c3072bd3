"""Several methods, one after the other: ``a+b+c``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from stgridpool.compressor import FRAMES, PATCHES, TOKENS, Compressor, Step, compress, planned_counts
from stgridpool.evidence import Evidence
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True, repr=False)
class Chain(Compressor):
    """The steps of several methods, in order, each on what the one before left.

    Called directly, it is what all of them would do at layer 0.

    Attributes:
        methods: At least two.

    Raises:
        ValueError: If a method acts earlier in the model than one before it.
    """

    methods: tuple[Compressor, ...]

    def __post_init__(self) -> None:
        if len(self.methods) < 2:
            raise ValueError(f"at least two methods can be joined, got {len(self.methods)}")
        steps = self.steps()
        for before, after in pairwise(steps):
            if _order(after) < _order(before):
                raise ValueError(
                    f"{self!r} cannot be joined in this order: {after.compressor!r} acts at {_named(after)}, before "
                    f"{before.compressor!r} at {_named(before)}"
                )

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.methods))

    def steps(self) -> tuple[Step, ...]:
        """Return those of all methods."""
        return tuple(step for method in self.methods for step in method.steps())

    def for_depth(self, num_layers: int) -> Chain:
        """See `Compressor.for_depth`."""
        return Chain(tuple(method.for_depth(num_layers) for method in self.methods))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Decide one method after the other, each on the output of the one before."""
        return compress(self, tokens, evidence)[1]

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return the lattice that the last method fills; None if the tokens decide."""
        planned: Shape | None = shape
        for step in self.steps():
            planned = None if planned is None else step.compressor.planned_shape(planned)
        return planned

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """See `Compressor.planned_count`."""
        return planned_counts(self.steps(), shape, total)[-1]


def _order(step: Step) -> int:
    """Return the place of a step, counted through the model."""
    return step.place if isinstance(step.place, int) else (FRAMES, PATCHES, TOKENS).index(step.place) - 3


def _named(step: Step) -> str:
    return f"decoder layer {step.place}" if step.is_inside else f"place {step.place!r}"
