"""Evidence about frames that steps have changed before the vision tower or in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.frame_cosines import frame_cosines
from stgridpool.evidence import Evidence, Need
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


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
