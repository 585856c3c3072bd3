"""Where the patches of frames come from that steps have changed before the vision tower or in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from stgridpool.compressor import FRAMES, Step, compress_steps
from stgridpool.evidence import Evidence, Need
from stgridpool.frame_evidence import FrameSources, FramesRead
from stgridpool.frames.groups import over_time
from stgridpool.frames.patterns import every_token
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.video_tokens import VideoTokens


def plan_of_frames(steps: Sequence[Step], evidence: Evidence, patches: VideoTokens) -> tuple[Shape, Plan]:
    """Return where the patches of encoded frames come from.

    The values of patches are those of the vision tower, so the plan does not reproduce them. A tile of a picture may
    begin within a patch; and a frame merged in the tower is traced to the same places of its frames, though the layers
    before have mixed all places of a frame.

    Args:
        steps: Of a method, at least one, all before the features.
        evidence: What is known of the video: `FramesRead` if a step acts on frames, `FrameSources` if one acts in the
            vision tower.
        patches: Those that were encoded.

    Returns:
        (T, H, W) of the patches of the frames that were read; and the plan whose sources they are.

    Raises:
        ValueError: If evidence is missing or does not fit.
    """
    on_frames = [step for step in steps if step.place == FRAMES]
    plans, read = [], patches.shape
    if len(on_frames) < len(steps):
        weights = _given(FrameSources(), evidence, steps[-1])
        read = (weights.shape[1], *read[1:])
        row, frame = weights.nonzero().T
        rows = Rows.of_entries(row, frame, weights[row, frame], len(weights))
        plans.append(over_time(rows, every_token(read[1:]), read))
    if on_frames:
        entered, read = read, (int(_given(FramesRead(), evidence, steps[0])), *read[1:])
        source = VideoTokens(torch.zeros(math.prod(read), 1, device=patches.features.device), read)
        made, pictures, _ = compress_steps(on_frames, source, {})
        if made.shape != entered:
            raise ValueError(f"{on_frames[-1].compressor!r} makes patches of {made.shape} from {read}, got {entered}")
        plans.insert(0, pictures)
    return read, replace(reduce(Plan.then, plans), reproduces=False)


def _given(need: Need, evidence: Evidence, step: Step) -> Tensor:
    if need not in evidence:
        raise ValueError(f"{step.compressor!r} changes frames: give {need!r}, which tells how")
    return evidence[need]
