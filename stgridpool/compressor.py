"""Compressor: the shape of every method; Step: a compressor at its place; compress: the one way to carry it out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import ClassVar, NamedTuple

from torch import Tensor

from stgridpool.evidence import Evidence, Need, through
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

FRAMES, PATCHES, TOKENS = "frames", "patches", "tokens"
"""Places in front of the language model: pixels, the projector's output, and what the checkpoint's pooling leaves."""

POSITIONS = ("reassign", "survive", "merge")
"""Positions that tokens may have from a decoder layer on; see `stgridpool.decoder.steps`."""


@dataclass(frozen=True)
class Step:
    """A compressor at its place.

    Attributes:
        compressor: The method.
        place: "frames", "patches" (in place of the checkpoint's own pooling), "tokens" (behind it, in front of the
            language model), or the number of the decoder layer whose input is compressed.
        positions: Inside the language model, where the remaining tokens stand from that layer on. "reassign": all
            tokens are counted again, so that no gap remains. "survive": every token keeps its position. "merge": the
            rotary tables of merged tokens are averaged like the tokens, text keeps its own.
        decode_gap: With "reassign", whether generated tokens have the positions that they have without this step.
        merges_evenly: With "merge", whether every source token weighs the same.
    """

    compressor: Compressor
    place: str | int
    positions: str = "reassign"
    decode_gap: bool = False
    merges_evenly: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether it acts inside the language model."""
        return isinstance(self.place, int)


class Compressed(NamedTuple):
    """Tokens that a compressor left."""

    tokens: Tensor
    """(N, D), in the dtype of the input."""
    plan: Plan


@dataclass(frozen=True)
class Compressor(ABC):
    """A method. Its fields are its options, its ``repr`` is the record of a run, and `plan` is what it decides.

    Attributes:
        needs_maps: Whether it acts on whole lattices only; class attribute.
    """

    needs_maps: ClassVar[bool] = True

    @property
    def counts_from(self) -> int:
        """How many steps earlier its budget counts: 1 for what was in front of the step before; 0 for its own input."""
        return 0

    @abstractmethod
    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Decide.

        Args:
            tokens: What is there; it is not changed.
            evidence: What `needs` names.

        Raises:
            ValueError: If the tokens do not fill a lattice and the method needs that, or are too few.
        """

    def values(self, features: Tensor, shape: Shape, plan: Plan) -> Tensor:
        """Compute the output (N, D) of a plan that does not reproduce its values; others are applied.

        Args:
            features: (S, D) on a lattice `shape`, which they fill.
            shape: (T, H, W).
            plan: Decided for these tokens.
        """
        del shape
        return plan.apply(features)

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks a model for besides the tokens; of a method of several steps, what all of them ask for."""
        return frozenset[Need]().union(*(step.compressor.needs for step in self.steps() if step.compressor is not self))

    @property
    def query_aware(self) -> bool:
        """Whether it looks at the question: it then compresses once per question, and questions share no prefix."""
        return any(need.query_aware for need in self.needs)

    def steps(self) -> tuple[Step, ...]:
        """Where it acts, in order; in place of the checkpoint's own pooling unless a method says otherwise."""
        return (Step(self, PATCHES),)

    def for_depth(self, num_layers: int) -> Compressor:
        """Return the method with options that count layers settled for a language model of `num_layers` layers.

        Raises:
            ValueError: If such a model is not deep enough.
        """
        del num_layers
        return self

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return the lattice (T', H', W') that the output fills for a source lattice; None if the tokens decide."""
        del shape
        return None

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens left, known before any token exists; None if the tokens decide.

        Args:
            shape: (T, H, W) of the source lattice.
            total: Tokens that stand on it, or stood there `counts_from` steps earlier; None if they fill it.
        """
        del total
        planned = self.planned_shape(shape)
        return None if planned is None else math.prod(planned)

    def __call__(self, features: Tensor, evidence: Evidence | None = None) -> Compressed:
        """Compress feature maps (T, H, W, D).

        Args:
            features: Of any floating dtype; they are not changed.
            evidence: What `needs` names.

        Raises:
            ValueError: See `compress`.
        """
        tokens, plan = compress(self, VideoTokens.of(features), evidence or {})
        return Compressed(tokens.features, plan)


def compress(compressor: Compressor, tokens: VideoTokens, evidence: Evidence) -> tuple[VideoTokens, Plan]:
    """Decide and apply, step after step: the tokens left, and the plan that made them.

    Args:
        compressor: The method.
        tokens: Not changed.
        evidence: At least what the method's `needs` names, about these tokens.

    Raises:
        ValueError: If evidence is missing; see also `Compressor.plan`.
    """
    missing = [need for need in compressor.needs if need not in evidence]
    if missing:
        raise ValueError(f"{compressor!r} needs evidence: {', '.join(sorted(map(repr, missing)))}")
    return compress_steps(compressor.steps(), tokens, evidence)[:2]


def compress_steps(
    steps: Sequence[Step], tokens: VideoTokens, evidence: Evidence
) -> tuple[VideoTokens, Plan, Evidence]:
    """Decide and apply steps, at least one, in order: the tokens left, the plan of all, and evidence about the tokens.

    Args:
        steps: In order.
        tokens: Not changed.
        evidence: At least what the methods' `needs` name, about these tokens.
    """
    plans: list[Plan] = []
    for step in steps:
        method = step.compressor
        plan = method.plan(tokens, {need: evidence[need] for need in method.needs})
        values = None if plan.reproduces else partial(method.values, shape=tokens.shape, plan=plan)
        tokens, evidence = tokens.through(plan, values), through(evidence, plan)
        plans.append(replace(plan, known=None))
    return tokens, reduce(Plan.then, plans), evidence


def planned_counts(steps: Sequence[Step], shape: Shape, total: int | None = None) -> list[int | None]:
    """Return the number of tokens after each step; None from where on the tokens decide.

    Args:
        steps: In order.
        shape: (T, H, W) of the source lattice.
        total: Tokens that stand on it; None if they fill it.
    """
    counts: list[int | None] = []
    before: list[int] = []  # tokens in front of each step
    for step in steps:
        if counts and counts[-1] is None:
            counts.append(None)
            continue
        before.append(math.prod(shape) if total is None else total)
        steps_back = step.compressor.counts_from
        counts.append(step.compressor.planned_count(shape, before[-1 - steps_back] if steps_back else total))
        planned = step.compressor.planned_shape(shape) if total is None else None
        shape, total = (shape, counts[-1]) if planned is None else (planned, None)
    return counts
