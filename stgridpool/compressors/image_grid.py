"""IG-VLM: frames tiled into one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.compressor import FRAMES, Step
from stgridpool.evidence import Evidence
from stgridpool.frame_transform import FrameTransform
from stgridpool.frames.byte_cache import cached_by_bytes
from stgridpool.frames.layout import resident
from stgridpool.frames.mosaics import mosaic, over_grids
from stgridpool.frames.pictures import tiled
from stgridpool.options import LONGEST_SIDE, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class ImageGrid(FrameTransform):
    """Tile every `frames` frames into one picture, before the vision tower, which then sees only the pictures.

    A picture is as large as a frame. Its frames stand row by row in the squarest grid, three rows of two for six. Tiles
    without a frame, in the last picture, stay blank: 0, the mean colour of the tower's preprocessing. Fewer frames than
    `frames` make one picture in a grid of their own number.

    IG-VLM shows one picture of six frames: the default, with as many frames sampled from the video. It tiles frames at
    their own size and leaves blank tiles white; see `FrameTransform` for where frames are tiled here. It also words the
    question for the picture, which is up to the task.

    The number of frames decides what is left, so there is no budget to meet.

    Source: IG-VLM, arXiv 2403.18406.

    Attributes:
        frames: Frames per picture, 1 to 256.

    Raises:
        ValueError: If `frames` is out of its range.
    """

    without_budget: ClassVar[str] = "the number of frames decides; set frames"

    frames: int = 6

    def __post_init__(self) -> None:
        whole_number("frames", self.frames, 1, LONGEST_SIDE)

    def steps(self) -> tuple[Step, ...]:
        """Return where it acts: on frames."""
        return (Step(self, FRAMES),)

    def planned_shape(self, shape: Shape) -> Shape:
        """Return (T', H, W), a frame for each picture."""
        return -(-shape[0] // self.frames), shape[1], shape[2]

    def pictures(self, frames: Tensor) -> Tensor:
        """See the base class."""
        size = min(self.frames, len(frames))
        return tiled(F.pad(frames, (0, 0, 0, 0, 0, 0, 0, -len(frames) % size)).unflatten(0, (-1, size)))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Do the same to tokens; each stands where its first source stood, a blank one in the last frame."""
        return resident(_laid(tokens.shape, min(self.frames, tokens.shape[0])), tokens.maps().device)


@cached_by_bytes()
@torch.inference_mode(False)
def _laid(shape: Shape, size: int) -> Plan:
    """Tile every `size` frames of a (T, H, W) video; on the CPU."""
    area, total = shape[1] * shape[2], math.prod(shape)
    members = torch.arange(shape[0] + -shape[0] % size).view(-1, size)  # (T', K)
    laid = over_grids(mosaic(shape[1:], size), members, area)
    is_there = laid.sources < total
    rows = Rows.of_entries(laid.row_of_entry()[is_there], laid.sources[is_there], laid.weights[is_there], len(laid))
    first = laid.sources[laid.offsets[:-1]]
    anchor = first.where(first < total, total - area + first % area)
    return Plan(rows, total, anchor, shape=(len(members), *shape[1:]))
