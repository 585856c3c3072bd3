"""Chain: several methods in a row, ``a+b+c``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from stgridpool.all_frames import count_all_frames
from stgridpool.chain_budget import under_one_budget
from stgridpool.compressor import (
    FRAMES,
    PATCHES,
    TOKENS,
    Compressor,
    EncoderLayer,
    Step,
    compress_tokens,
    planned_counts,
)
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Evidence
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True, repr=False)
class Chain(Compressor):
    """The steps of several methods, in order, each on the output of the one before.

    When you call a chain on feature maps, all steps act there, as they would at layer 0. After steps of another method
    in the vision tower, budgets before the language model count all frames, not those left.

    Attributes:
        methods: At least two methods, in order.

    Raises:
        ValueError: If there are fewer than two methods, or one acts earlier in the model than the one before it.
    """

    methods: tuple[Compressor, ...]

    def __post_init__(self) -> None:
        if len(self.methods) < 2:
            raise ValueError(f"a chain must have at least two methods, got {len(self.methods)}")
        for before, after in pairwise(self.acting()):
            if _order(after) < _order(before):
                raise ValueError(
                    f"{self!r} cannot be joined in this order: {after.compressor!r} acts at {_named(after)}, before "
                    f"{before.compressor!r} at {_named(before)}"
                )

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.methods))

    def steps(self) -> tuple[Step, ...]:
        """Return the steps of all methods."""
        return count_all_frames(method.steps() for method in self.methods)

    def acting(self) -> tuple[Step, ...]:
        """See `Compressor.acting`."""
        return count_all_frames(method.acting() for method in self.methods)

    def for_depth(self, num_layers: int) -> Chain:
        """Resolve the options of every method that depend on the depth, see `Compressor.for_depth`.

        Raises:
            ValueError: If the model is not deep enough for one of them.
        """
        return Chain(tuple(method.for_depth(num_layers) for method in self.methods))

    def at_retention(self, share: float, of: str, reference: Reference) -> Chain:
        """Share one budget among the methods, see `stgridpool.chain_budget` and `Compressor.at_retention`."""
        methods = self.for_depth(reference.num_layers).methods
        return Chain(under_one_budget(methods, share, of, reference))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Combine the plans of all methods, each for the output of the one before."""
        return compress_tokens(self, tokens, evidence)[1]

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return the lattice that the output fills; None if that is not known yet."""
        planned: Shape | None = shape
        for step in self.steps():
            planned = None if planned is None else step.compressor.planned_shape(planned)
        return planned

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens after the last step; None if it depends on the tokens."""
        return planned_counts(self.steps(), shape, total)[-1]


def _order(step: Step) -> tuple[int, int]:
    """Return the rank of a step's place, in the order in which a model computes."""
    if isinstance(step.place, EncoderLayer):
        return 1, step.place.layer
    return (4, step.place) if isinstance(step.place, int) else ((FRAMES, "", PATCHES, TOKENS).index(step.place), 0)


def _named(step: Step) -> str:
    if isinstance(step.place, EncoderLayer):
        return str(step.place)
    return f"decoder layer {step.place}" if step.is_inside else f"place {step.place!r}"
