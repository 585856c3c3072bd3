"""Any method, segment by segment of the video."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.segments import frame_similarity, segment_lengths, segment_of_frames
from stgridpool.algorithms.typicality import frame_scales, typicality
from stgridpool.budget import share_out
from stgridpool.evidence import Evidence, FrameVectors
from stgridpool.listed_frames import ListedFrames
from stgridpool.options import choice, number, whole_number
from stgridpool.other_method import OtherMethod
from stgridpool.plan import Plan, Shape
from stgridpool.rows import sums_of_groups
from stgridpool.scorer import FRAME_BUDGETS, Budgeted
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class PerSegment(OtherMethod, Budgeted):
    """Cut the video where it changes, share the budget out, and let another method compress each segment separately.

    The video is cut between frames whose mean tokens have the least similar directions, as in `fastvid`: into at least
    `segments`, and wherever the cosine is below `threshold`. Segments share the budget by the largest remainder; one
    that gets no token is lost. Where the other method acts and what it needs is as it has it. It must be able to meet
    any number of tokens.

    Attributes:
        method: Name of a method that acts once and has a budget.
        options: Its options, as a mapping or as pairs of name and value, without a budget.
        segments: Smallest number of segments, 1 to 1000; a segment has a frame at least.
        threshold: Cosine below which neighbouring frames are cut apart, -1 to 1.
        frame_budget: "uniform" shares the budget by the number of tokens, "uniqueness" gives more to segments whose
            frames are unlike the rest of the video, see `FrameBudgeted`.

    Raises:
        ValueError: If an option is out of its range, there is no such method or option, or the method acts several
            times or has no budget.
    """

    given: ClassVar[dict[str, Any]] = {"tokens": 1}

    method: str = "divprune"
    segments: int = 8
    threshold: float = 0.9
    frame_budget: str = "uniform"

    def __post_init__(self) -> None:
        Budgeted.__post_init__(self)
        OtherMethod.__post_init__(self)
        whole_number("segments", self.segments, 1, 1000)
        number("threshold", self.threshold, -1, 1)
        choice("frame_budget", self.frame_budget, FRAME_BUDGETS)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the budget; None where the other method may miss its own."""
        frame = (1, *shape[1:])
        whole = self.build(tokens=math.prod(frame)).planned_count(frame)
        return None if whole is None else super().planned_count(shape, total)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Cut the video, and compress each segment.

        Raises:
            ValueError: If the other method cannot leave the number of tokens that a segment gets.
        """
        segment = self._segment_of_frames(tokens)[tokens.frames()]  # (N,)
        plans = []
        for index, count in enumerate(self._shares(tokens, segment)):
            if count:
                chosen = (segment == index).nonzero().flatten()
                part, about = _part(tokens, evidence, chosen)
                plan = self.build(tokens=count).plan(part, about).flatten()
                plans.append(
                    Plan(
                        plan.rows.moved(chosen[plan.rows.sources]),
                        len(tokens),
                        chosen[plan.anchor],
                        reproduces=plan.reproduces,
                    )
                )
        return Plan.concat(plans)

    def _segment_of_frames(self, tokens: VideoTokens) -> Tensor:
        """Return the segment (T,) int64 of every frame."""
        sums = sums_of_groups(tokens.features.float(), tokens.frames(), tokens.shape[0])  # as good as means: directions
        lengths = segment_lengths(frame_similarity(sums), self.segments, self.threshold)
        return segment_of_frames(lengths).to(tokens.features.device)

    def _shares(self, tokens: VideoTokens, segment: Tensor) -> list[int]:
        """Return how many tokens of each segment to keep."""
        sizes = torch.bincount(segment)
        weight = sizes
        if self.frame_budget == "uniqueness":
            scale = frame_scales(typicality(tokens).of_video, tokens)
            weight = torch.bincount(segment, scale[tokens.frames()].double().clamp_min(0))
        return share_out(self.count(tokens), weight, sizes).tolist()


def _part(tokens: VideoTokens, evidence: Evidence, chosen: Tensor) -> tuple[VideoTokens, Evidence]:
    """Return the tokens `chosen` (n,), which are all those of successive frames, and the evidence about them."""
    frames = tokens.frames()[chosen]
    first, last = int(frames.min()), int(frames.max())
    shape = (last - first + 1, *tokens.shape[1:])
    part = VideoTokens(
        tokens.features[chosen],
        shape,
        None if tokens.cell is None else tokens.cell[chosen] - first * shape[1] * shape[2],
        tuple(level[chosen] for level in tokens.levels),
        None if tokens.times is None else tokens.times[first : last + 1],
        tokens.before,
    )
    about = dict(evidence)
    for need, value in evidence.items():
        if need.per_token:
            about[need] = value[chosen]
        elif isinstance(need, FrameVectors | ListedFrames):
            about[need] = value[first : last + 1]
    return part, about
