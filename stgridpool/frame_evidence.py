"""Evidence about frames that steps have changed before the vision tower or in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.frame_cosines import frame_cosines
from stgridpool.evidence import Evidence, Need, through
from stgridpool.plan import Plan, Shape
from stgridpool.step import EncoderLayer, Step
from stgridpool.video_tokens import VideoTokens

if TYPE_CHECKING:
    from stgridpool.compressor import Compressor


@dataclass(frozen=True)
class FramesRead(Need):
    """The number of frames that were read from the video, before any step; (1,) int64.

    Whoever reads the video gives it, if a step acts on frames, so that tokens can be traced back to them.
    """

    per_token: ClassVar[bool] = False
    from_file: ClassVar[bool] = True


@dataclass(frozen=True)
class FrameSources(Need):
    """The weight of each frame that entered the vision tower in each frame that left it; (T', T) float32.

    Only after steps in the vision tower.
    """

    per_token: ClassVar[bool] = False
    frame_axes: ClassVar[int] = 1
    made_by_steps: ClassVar[bool] = True


@dataclass(frozen=True)
class FrameCosines(Need):
    """How alike any two frames are that the last step in the vision tower left, see `frame_cosines`; (T', T') float32.

    Only after steps in the vision tower; of the output of their last layer.
    """

    per_token: ClassVar[bool] = False
    frame_axes: ClassVar[int] = 2
    made_by_steps: ClassVar[bool] = True


@dataclass(frozen=True)
class AllFramesLattice(Need):
    """The lattice that the tokens would stand on if all frames that entered the tower had left it; (4,) int64.

    T, H, W and the number of tokens. `compress_steps` makes it after steps in the vision tower, and lets it follow what
    later steps leave: the checkpoint's own pooling may join frames, and so may a method.
    """

    per_token: ClassVar[bool] = False
    made_by_steps: ClassVar[bool] = True

    @property
    def from_tower(self) -> bool:
        """Return False: the tower does not compute it."""
        return False


MADE_BY_STEPS: frozenset[type[Need]] = frozenset({FrameSources, FrameCosines, AllFramesLattice})
"""Kinds of evidence that steps in the vision tower leave behind."""


def frame_weights(plan: Plan, shape: Shape) -> Tensor:
    """Return the weight of each source frame in each output frame of a plan that treats all places alike, (T', T).

    Args:
        plan: Its output fills a lattice.
        shape: (T, H, W) of its source tokens.
    """
    frames, area = shape[0], shape[1] * shape[2]
    of_token = torch.arange(plan.num_sources, device=plan.anchor.device) // area
    return plan.apply(F.one_hot(of_token, frames).float())[::area]


def frames_through(evidence: Evidence, plan: Plan, before: Shape) -> Evidence:
    """Return evidence where what belongs to frames is averaged over the frames that became one.

    Args:
        evidence: Evidence about the source frames of `plan`.
        plan: The plan that was applied to their tokens.
        before: (T, H, W) of these tokens.
    """
    if plan.shape is None or plan.shape[0] == before[0] or not any(need.frame_axes for need in evidence):
        return evidence
    of_token = torch.arange(plan.num_sources, device=plan.anchor.device) // (before[1] * before[2])
    weights = plan.mean(F.one_hot(of_token, before[0]).float()).unflatten(0, (plan.shape[0], -1)).mean(1)  # (T', T)

    def carried(value: Tensor, axes: int) -> Tensor:
        moved = value.to(weights)
        for axis in range(axes):
            moved = torch.tensordot(weights, moved, dims=([1], [axis])).movedim(0, axis)
        return moved.to(value)

    return {need: carried(value, need.frame_axes) if need.frame_axes else value for need, value in evidence.items()}


def left_behind(plan: Plan, before: Shape, left: VideoTokens, evidence: Evidence) -> dict[Need, Tensor]:
    """Return the evidence that a step in the vision tower makes.

    Args:
        plan: The decision of the step.
        before: (T, H, W) of its input.
        left: Its output.
        evidence: What earlier steps left behind, if any.
    """
    weights, earlier = frame_weights(plan, before), evidence.get(FrameSources())
    sources = weights if earlier is None else weights @ earlier
    return {FrameSources(): sources, FrameCosines(): frame_cosines(left.features.unflatten(0, (left.shape[0], -1)))}


def after_step(evidence: Evidence, step: Step, plan: Plan, before: Shape, left: VideoTokens) -> Evidence:
    """Return the evidence about what a step leaves.

    Args:
        evidence: Evidence about its input.
        step: The step.
        plan: Its decision.
        before: (T, H, W) of its input.
        left: Its output.
    """
    evidence = through(evidence, plan)
    made = {need: value for need, value in evidence.items() if need.made_by_steps and step.is_before_features}
    evidence = {**frames_through(evidence, plan, before), **made}
    if isinstance(step.place, EncoderLayer):
        evidence = {**evidence, **left_behind(plan, before, left, evidence)}
    return evidence


def with_all_frames(evidence: Evidence, step: Step, tokens: VideoTokens) -> Evidence:
    """Return evidence with the `AllFramesLattice` of the first tokens after steps in the vision tower.

    Args:
        evidence: About `tokens`.
        step: The next step.
        tokens: Its input.
    """
    sources = evidence.get(FrameSources())
    if sources is None or step.is_before_features or AllFramesLattice() in evidence:
        return evidence
    entered, (frames, *sides) = sources.shape[1], tokens.shape
    return {**evidence, AllFramesLattice(): torch.tensor([entered, *sides, len(tokens) * entered // frames])}


def all_frames_through(evidence: Evidence, method: Compressor, before: VideoTokens, after: VideoTokens) -> Evidence:
    """Return evidence whose `AllFramesLattice`, if it has one, is what `method` would leave of all frames.

    Where the tokens decide, that is the share that it has left of those there are.

    Args:
        evidence: About the tokens `before`, as far as that need is concerned.
        method: The method.
        before: Its input.
        after: Its output.
    """
    lattice = evidence.get(AllFramesLattice())
    if lattice is None:
        return evidence
    frames, height, width, total = lattice.tolist()
    shape = (frames, height, width)
    is_full = total == math.prod(shape)
    count = method.planned_count(shape, None if is_full else total)
    planned = method.planned_shape(shape) if is_full else None
    if planned is None:
        planned = (frames * after.shape[0] // before.shape[0], *after.shape[1:])
    count = total * len(after) // len(before) if count is None else count
    return {**evidence, AllFramesLattice(): torch.tensor([*planned, count])}
