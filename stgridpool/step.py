"""Step: a compressor at its place in a model; and how many tokens several of them leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stgridpool.plan import Shape

if TYPE_CHECKING:
    from stgridpool.compressor import Compressor

FRAMES, PATCHES, TOKENS = "frames", "patches", "tokens"
"""Places before the language model: pixels, output of the projector, and output of the checkpoint's pooling."""


@dataclass(frozen=True)
class EncoderLayer:
    """A place in the vision tower: the output of a layer, where whole frames may be merged or dropped.

    Attributes:
        layer: The layer, counted back from the one whose output is used as features, as in `stgridpool.evidence`: -1 is
            that one.
    """

    layer: int

    def __str__(self) -> str:
        return f"layer {self.layer} of the vision tower"


POSITIONS = ("reassign", "survive", "merge")
"""How the remaining tokens get their positions from a decoder layer on; see `Step`."""


@dataclass(frozen=True)
class Step:
    """A compressor at its place.

    Attributes:
        compressor: The method.
        place: "frames", an `EncoderLayer`, "patches" (in place of the checkpoint's own pooling), "tokens" (after it,
            before the language model), or the number of the decoder layer whose input is compressed.
        positions: Inside the language model, the positions of the remaining tokens from that layer on. "reassign"
            numbers all tokens again, without gaps. "survive" keeps the position of every token. "merge" averages the
            rotary tables of merged tokens with the weights of the tokens; text keeps its own tables.
        decode_gap: With "reassign", whether generated tokens keep the positions that they would have without this step.
        merges_evenly: With "merge", whether all source tokens have the same weight.
    """

    compressor: Compressor
    place: str | int | EncoderLayer
    positions: str = "reassign"
    decode_gap: bool = False
    merges_evenly: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether the step acts inside the language model."""
        return isinstance(self.place, int)

    @property
    def is_before_features(self) -> bool:
        """Whether the step acts before the vision tower or in it, so that the features of a video depend on it."""
        return self.place == FRAMES or isinstance(self.place, EncoderLayer)


def planned_counts(steps: Sequence[Step], shape: Shape, total: int | None = None) -> list[int | None]:
    """Return the number of tokens after each step; None from the first step on whose count depends on the tokens.

    Args:
        steps: In order.
        shape: (T, H, W) of the source lattice.
        total: Number of tokens on it; None if they fill it.

    Raises:
        ValueError: If a step needs tokens that fill a lattice, as those at the source do, and an earlier one leaves
            none that do.
    """
    filled = total is None
    counts: list[int | None] = []
    before: list[int] = []  # tokens before each step
    for step in steps:
        if counts and counts[-1] is None:
            counts.append(None)
            continue
        if filled and total is not None and step.compressor.needs_maps:
            raise ValueError(
                f"{step.compressor!r} needs tokens that fill a lattice, and {steps[len(counts) - 1].compressor!r} "
                "before it leaves none that do: swap them, or choose another method"
            )
        before.append(math.prod(shape) if total is None else total)
        steps_back = step.compressor.counts_from
        counts.append(step.compressor.planned_count(shape, before[-1 - steps_back] if steps_back else total))
        planned = step.compressor.planned_shape(shape) if total is None else None
        shape, total = (shape, counts[-1]) if planned is None else (planned, None)
    return counts
