"""Compressor: the interface of methods; compress_tokens: the way to apply one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor

from stgridpool.budget import BudgetError
from stgridpool.evidence import Evidence, Need
from stgridpool.frame_evidence import AllFramesLattice, after_step, all_frames_through, with_all_frames
from stgridpool.plan import Plan, Shape
from stgridpool.step import FRAMES, PATCHES, POSITIONS, TOKENS, EncoderLayer, Step, planned_counts
from stgridpool.video_tokens import VideoTokens

if TYPE_CHECKING:
    from stgridpool.equal_budget import Reference

__all__ = [
    "FRAMES",
    "PATCHES",
    "POSITIONS",
    "TOKENS",
    "Compressed",
    "Compressor",
    "EncoderLayer",
    "Step",
    "compress_steps",
    "compress_tokens",
    "early_steps",
    "planned_counts",
    "steps_that_renumber",
]


class Compressed(NamedTuple):
    """The output of a compressor."""

    tokens: Tensor
    """(N, D), in the dtype of the input."""
    plan: Plan


@dataclass(frozen=True)
class Compressor(ABC):
    """A method. Its fields are its options, its ``repr`` records the run, and `plan` makes its decision.

    Attributes:
        needs_maps: Whether the method needs tokens that fill their lattice; class attribute.
        without_budget: Why the method takes no share and no number of tokens, and what to do; empty if it takes them.
            Class attribute.
        num_pathways: How many times the output goes over the frames, one time after the other; class attribute.
    """

    needs_maps: ClassVar[bool] = True
    without_budget: ClassVar[str] = ""
    num_pathways: ClassVar[int] = 1

    @property
    def counts_from(self) -> int:
        """How many steps back the budget counts tokens: 0 for the method's own input, 1 for that of the step before."""
        return 0

    @abstractmethod
    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Decide which source tokens make each output token.

        Args:
            tokens: The tokens to compress; they are not changed.
            evidence: Exactly what `needs` names.

        Raises:
            ValueError: If the method needs a whole lattice and the tokens do not fill theirs, or if there are too few
                tokens for its options.
        """

    def values(self, features: Tensor, shape: Shape, plan: Plan) -> Tensor:
        """Compute the output (N, D) for a plan that does not reproduce its values; all other plans are applied.

        Args:
            features: (S, D), which fill a lattice of `shape`.
            shape: (T, H, W).
            plan: The plan for these tokens.
        """
        del shape
        return plan.apply(features)

    @property
    def needs(self) -> frozenset[Need]:
        """The evidence that the method asks a model for; if it has several steps, the evidence for all of them."""
        others = (step.compressor for step in self.acting() if step.compressor is not self)
        return frozenset[Need]().union(*(method.needs for method in others))

    @property
    def query_aware(self) -> bool:
        """Whether the method looks at the question: it then runs once per question, and questions share no prefix."""
        return any(need.query_aware for need in self.needs)

    def steps(self) -> tuple[Step, ...]:
        """Return where the method acts, in order; by default in place of the checkpoint's own pooling."""
        return (Step(self, PATCHES),)

    def acting(self) -> tuple[Step, ...]:
        """Return the steps without checking whether a mean over layers is enough for them; it may still be changed."""
        return self.steps()

    def for_depth(self, num_layers: int) -> Compressor:
        """Resolve the options that depend on the depth of the language model, which has `num_layers` layers.

        Raises:
            ValueError: If the model is not deep enough.
        """
        del num_layers
        return self

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Return the method with those options changed that its number of tokens follows from.

        Args:
            share: Share of the checkpoint's own tokens to leave, above 0 and at most 1. Windows come in whole sizes and
                may miss it; `stgridpool.equal_budget.planned_retention` says what they leave.
            of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
            reference: The checkpoint.

        Raises:
            ValueError: If it has no such option, or cannot leave that share by that definition.
        """
        del reference
        why = f": {self.without_budget}" if self.without_budget else ""
        raise ValueError(f"{type(self).__name__} has no budget by which {of} could be {share:g}{why}")

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return the lattice (T', H', W') that the output fills for a source lattice; None if that is not known yet."""
        del shape
        return None

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of output tokens before any token is encoded; None if it depends on the tokens.

        Args:
            shape: (T, H, W) of the source lattice.
            total: Number of tokens on it, or on it `counts_from` steps back; None if they fill it.
        """
        del total
        planned = self.planned_shape(shape)
        return None if planned is None else math.prod(planned)

    def __call__(self, features: Tensor, evidence: Evidence | None = None) -> Compressed:
        """Compress feature maps (T, H, W, D).

        Args:
            features: Of any floating dtype; they are not changed.
            evidence: At least what `needs` names.

        Raises:
            ValueError: If `features` is not such a tensor; see also `compress_tokens`.
        """
        tokens, plan = compress_tokens(self, VideoTokens.of(features), evidence or {})
        return Compressed(tokens.features, plan)


def is_frozen_dataclass(method: type) -> bool:
    """Return whether a class is decorated itself, so that its options are compared and recorded.

    A class that is only derived from a dataclass, as all methods are, passes for one, and equals itself whatever it
    was given.
    """
    parameters = vars(method).get("__dataclass_params__")
    return parameters is not None and bool(parameters.frozen)


def compress_tokens(compressor: Compressor, tokens: VideoTokens, evidence: Evidence) -> tuple[VideoTokens, Plan]:
    """Compress tokens, step by step, and return the output tokens and the plan that made them.

    Args:
        compressor: The method.
        tokens: The tokens to compress; they are not changed.
        evidence: At least what `needs` of the method names, about these tokens.

    Raises:
        ValueError: If evidence is missing; see also `Compressor.plan`.
    """
    return compress_steps(compressor.steps(), tokens, evidence)[:2]


def compress_steps(
    steps: Sequence[Step], tokens: VideoTokens, evidence: Evidence
) -> tuple[VideoTokens, Plan, Evidence]:
    """Apply steps, and return the output tokens, the plan of all steps, and the evidence about the output tokens.

    Args:
        steps: At least one, in order.
        tokens: The tokens to compress; they are not changed.
        evidence: At least what `needs` of each method names, about these tokens.

    Raises:
        BudgetError: If a method leaves no token.
        ValueError: If evidence is missing; see also `Compressor.plan`.
    """
    plans: list[Plan] = []
    for number, step in enumerate(steps, 1):
        method = step.compressor
        evidence = with_all_frames(evidence, step, tokens)
        missing = [need for need in method.needs if need not in evidence]
        if missing:
            raise ValueError(f"{method!r} needs evidence: {', '.join(sorted(map(repr, missing)))}")
        plan = method.plan(tokens, {need: evidence[need] for need in method.needs})
        if not len(plan):
            raise BudgetError(f"{method!r} leaves none of {len(tokens)} tokens: its budget is too small, ask for more")
        values = None if plan.reproduces else partial(method.values, shape=tokens.shape, plan=plan)
        before, tokens = tokens, tokens.through(plan, values)
        evidence = after_step(evidence, step, plan, before.shape, tokens)
        if any(AllFramesLattice() in later.compressor.needs for later in steps[number:]):
            evidence = all_frames_through(evidence, method, before, tokens)
        plans.append(replace(plan, known=None))
    return tokens, reduce(Plan.then, plans), evidence


def early_steps(compressor: Compressor) -> tuple[Step, ...]:
    """Return the steps of a method on which the features of a video depend, see `Step.is_before_features`."""
    return tuple(step for step in compressor.acting() if step.is_before_features)


def steps_that_renumber(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps before decoder layer 0, if every layer then reads a prompt with positions of its own.

    Tokens that are generated may still stand after the positions of before, see `Step.decode_gap`.

    Args:
        steps: In order.
    """
    first = tuple(step for step in steps if step.place == 0)
    return first if first and first[-1].positions == "reassign" else ()
