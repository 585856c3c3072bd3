"""FrameTransform: a method that changes the frames of a video before the vision tower sees them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stgridpool.compressor import FRAMES, Compressor, Step


@dataclass(frozen=True)
class FrameTransform(Compressor):
    """Base of methods that make pictures of frames, and so act at the place "frames".

    They act on pixels at the resolution of the vision tower, after resizing and normalisation: on what the tower would
    read, so that it does not matter how a video was decoded, and nothing in the reading process has to know of them.
    Where a source tiles frames at their own size and resizes the result once, pixels differ a little, since here
    frames have been resized before. Prompts that state times name the frames that were read.

    Their `plan` is for tokens: it does to any (T, H, W) what `pictures` does to pixels. Where tokens come from is told
    by that plan for the patches of the frames, in which a tile may begin within a patch; values are those of the tower,
    which the plan does not know.
    """

    @abstractmethod
    def pictures(self, frames: Tensor) -> Tensor:
        """Make pictures (T', C, H, W) of frames (T, C, H, W), of any floating dtype; they are not changed."""


def transformed(steps: Sequence[Step], frames: Tensor) -> Tensor:
    """Apply the steps at the place "frames", in order; others are skipped.

    Args:
        steps: Of a method.
        frames: (T, C, H, W), of any floating dtype; they are not changed.

    Raises:
        TypeError: If a method at that place is no `FrameTransform`.
        ValueError: If `frames` is not such a tensor.
    """
    for step in steps:
        if step.place != FRAMES:
            continue
        if not isinstance(step.compressor, FrameTransform):
            raise TypeError(f"a method at place 'frames' must be a FrameTransform, got {step.compressor!r}")
        if frames.dim() != 4:
            raise ValueError(f"frames must be (frames, channels, height, width), got {tuple(frames.shape)}")
        frames = step.compressor.pictures(frames)
    return frames
