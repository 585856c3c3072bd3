"""Evidence about the frames of a video that steps in front of its features have changed, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from stgridpool.compressor import Step, compress_steps
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


def plan_of_frames(steps: Sequence[Step], evidence: Evidence, patches: VideoTokens) -> tuple[Shape, Plan]:
    """Return where the patches of encoded frames come from.

    The values of patches are those of the vision tower, so the plan does not reproduce them. A tile of a picture may
    begin within a patch.

    Args:
        steps: Of a method, at least one, all in front of the features.
        evidence: What is known of the video: `FramesRead` if a step acts on frames.
        patches: Those that were encoded.

    Returns:
        (T, H, W) of the patches of the frames that were read; and the plan whose sources they are.

    Raises:
        ValueError: If the number of frames that were read is not given, or does not fit.
    """
    if FramesRead() not in evidence:
        raise ValueError(f"{steps[0].compressor!r} changes frames: give the number that was read, {FramesRead()!r}")
    device, (_, height, width) = patches.features.device, patches.shape
    read = (int(evidence[FramesRead()]), height, width)
    source = VideoTokens(torch.zeros(math.prod(read), 1, device=device), read)
    made, plan, _ = compress_steps(steps, source, {})
    if made.shape != patches.shape:
        raise ValueError(f"{steps[-1].compressor!r} makes patches of {made.shape} from {read}, got {patches.shape}")
    return read, replace(plan, reproduces=False)
