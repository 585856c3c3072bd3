"""Distinct frames: frames of a video whose pixels are equal are encoded once.

Screen recordings, slides and sampled stills repeat frames to the bit. The features of a repeated frame are those of the
first one, so that only the time changes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

REUSED = "reused_frames"
"""Name of the number of frames that a model itself did not encode again, among the features that it returns."""


@dataclass(frozen=True)
class DistinctFrames:
    """Which frames of a video are the first of their kind; a model may take several frames as one.

    Attributes:
        first: The frames that equal no earlier one, ascending.
        which: For each frame, the position in `first` of the frame that it equals.
    """

    first: tuple[int, ...]
    which: tuple[int, ...]

    @classmethod
    def of(cls, pixels: Tensor | Sequence[Tensor], kinds: Sequence[Hashable] | None = None) -> DistinctFrames:
        """Compare the frames of a video; only frames of equal sum are compared value by value.

        On another device than the CPU this waits for the device.

        Args:
            pixels: (T, ...), or T tensors of any shapes.
            kinds: For each frame its kind; frames of different kinds are different. None if all are of one kind.
        """
        sums = torch.stack([frame.sum(dtype=torch.float32) for frame in pixels]).tolist()
        first: list[int] = []
        which: list[int] = []
        by_sum: dict[tuple[Hashable, float], list[int]] = {}
        for frame, total in enumerate(sums):
            alike = by_sum.setdefault((kinds[frame] if kinds else None, total), [])
            match = next((seen for seen in alike if torch.equal(pixels[first[seen]], pixels[frame])), None)
            if match is None:
                match = len(first)
                first.append(frame)
                alike.append(match)
            which.append(match)
        return cls(tuple(first), tuple(which))

    @property
    def num_reused(self) -> int:
        """How many frames equal an earlier one."""
        return len(self.which) - len(self.first)

    @property
    def reused(self) -> tuple[int, ...]:
        """The frames that equal an earlier one, ascending."""
        return tuple(frame for frame, number in enumerate(self.which) if self.first[number] != frame)


def repeated(values: Tensor, frames: DistinctFrames) -> Tensor:
    """Give every frame the rows of the frame that it equals.

    Args:
        values: (U * n, ...), n rows for each of the U distinct frames, on any device.
        frames: Which frame equals which.

    Returns:
        (T * n, ...).
    """
    which = torch.tensor(frames.which).to(values.device, non_blocking=True)
    by_frame: Tensor = values.unflatten(0, (len(frames.first), -1))
    return by_frame.index_select(0, which).flatten(0, 1)
