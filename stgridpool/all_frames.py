"""AllFrames: a method whose budget counts all frames that entered the vision tower, of which steps in it left fewer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from stgridpool.budget import warn_of_large_budget
from stgridpool.compressor import Compressor, EncoderLayer, Step
from stgridpool.evidence import Evidence, Need
from stgridpool.frame_evidence import AllFramesLattice, FrameSources
from stgridpool.other_method import budgeted, with_budget
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import BUDGETS
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class AllFrames(Compressor):
    """Let a method leave what its budget says of all frames that entered the tower, or all tokens if they are fewer.

    What steps between the tower and the method leave of all frames follows from their options, see `AllFramesLattice`.

    Attributes:
        method: The method, which sees the frames left. It has a budget, or calls a method that has one.
    """

    needs_maps: ClassVar[bool] = False

    method: Compressor

    @property
    def needs(self) -> frozenset[Need]:
        """Return the needs of the method, and what all frames would have come to."""
        return self.method.needs | {FrameSources(), AllFramesLattice()}

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Turn the budget into a number of tokens, and let the method meet it."""
        frames, height, width, total = evidence[AllFramesLattice()].tolist()
        known = {need: evidence[need] for need in self.method.needs}
        inner = budgeted(self.method)
        count = None if inner is None else inner.budget.count((frames, height, width), total)
        if count is None:
            return self.method.plan(tokens, known)
        if count > len(tokens):
            warn_of_large_budget(repr(self.method))
        return with_budget(self.method, tokens=min(count, len(tokens))).plan(tokens, known)

    def values(self, features: Tensor, shape: Shape, plan: Plan) -> Tensor:
        """Compute the output as the method does."""
        return self.method.values(features, shape, plan)

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return the lattice that the method leaves of all frames."""
        return self.method.planned_shape(shape)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens that the method leaves of all frames."""
        return self.method.planned_count(shape, total)


def count_all_frames(methods: Iterable[Sequence[Step]]) -> tuple[Step, ...]:
    """Join the steps of methods; after one in the vision tower, budgets before the language model count all frames.

    A method whose options set no budget, but a rate or a threshold, stays as it is.

    Args:
        methods: The steps of each method, at least one.
    """
    steps: list[Step] = []
    lacks_frames = False  # of those that entered the tower
    for of_method in methods:
        for step in of_method:
            counts = lacks_frames and not step.is_before_features and not step.is_inside
            is_set = counts and _has_budget(step.compressor)
            steps.append(replace(step, compressor=AllFrames(step.compressor)) if is_set else step)
        lacks_frames = lacks_frames or isinstance(steps[-1].place, EncoderLayer)
    return tuple(steps)


def _has_budget(method: Compressor) -> bool:
    """Return whether the options of a method, or of the one that it calls, set a budget."""
    inner = budgeted(method)
    return inner is not None and any(getattr(inner, name) is not None for name in BUDGETS)
