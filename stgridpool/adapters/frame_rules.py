"""Rules by which the frames of a video are chosen for a native model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers.video_utils import VideoMetadata


@dataclass(frozen=True)
class Source:
    """The video from which frames are chosen.

    Attributes:
        num_frames: Number of its frames, at least 1.
        frame_rate: Its rate, in frames per second, above 0.
    """

    num_frames: int
    frame_rate: float

    def metadata(self, **frames: Any) -> VideoMetadata:
        """Return what processors are told about it; a new object for each call, because they change it."""
        duration = self.num_frames / self.frame_rate
        return VideoMetadata(total_num_frames=self.num_frames, fps=self.frame_rate, duration=duration, **frames)


class FrameRule(Protocol):
    """A rule that chooses frames and prepares them for the processor."""

    def choose(self, source: Source) -> list[int]:
        """Return the indices of the frames to read, ascending, at least one."""

    def prepare(self, frames: NDArray[np.uint8]) -> tuple[Any, dict[str, Any]]:
        """Return frames (T, h, w, 3) as the processor should get them, and options for the processor."""


@dataclass(frozen=True, eq=False)
class OwnRule:
    """The convention of a family: what its video processor chooses when it samples frames itself.

    Attributes:
        video_processor: The checkpoint's video processor.
        default: What the family uses if the checkpoint sets neither "fps" nor "num_frames"; see `Adapter.sampling`.
        fps: Frames per second of video, above 0, instead of the checkpoint's setting; None to follow it.
        max_frames_num: Maximum number of frames, at least 1; from longer videos this many are sampled evenly, the first
            and the last among them. None for the checkpoint's maximum alone.
    """

    video_processor: Any
    default: Mapping[str, float]
    fps: float | None = None
    max_frames_num: int | None = None

    def choose(self, source: Source) -> list[int]:
        """Return the indices of the frames to read; the first is repeated if a video is shorter than a token."""
        shortest: int = getattr(self.video_processor, "temporal_patch_size", None) or 1
        if source.num_frames < shortest:
            return [0] * shortest
        processor, options = self._sampling(source)
        chosen = [int(index) for index in processor.sample_frames(source.metadata(), **options)]
        if self.max_frames_num is None or len(chosen) <= self.max_frames_num:
            return chosen
        return spread(source.num_frames, self.max_frames_num)

    def prepare(self, frames: NDArray[np.uint8]) -> tuple[Any, dict[str, Any]]:
        """Return the frames as they are: the processor resizes them as its settings say."""
        return frames, {}

    def _sampling(self, source: Source) -> tuple[Any, dict[str, Any]]:
        """Return the video processor that chooses the frames, and the options of its method."""
        processor = self.video_processor
        own = {name: getattr(processor, name, None) for name in ("fps", "num_frames")}
        if self.fps is not None:
            if own["fps"] is None and own["num_frames"] is not None:  # it would ignore the rate
                processor = copy.copy(processor)
                processor.num_frames = None
            return processor, {"fps": _possible_rate(self.fps, source)}
        if own["fps"] is not None:
            return processor, {"fps": _possible_rate(own["fps"], source)} if own["num_frames"] is None else {}
        options: dict[str, Any] = {} if own["num_frames"] is not None else dict(self.default)
        count = options.get("num_frames", own["num_frames"])
        if count is not None and count > source.num_frames:  # processors refuse more frames than there are
            step: int = getattr(processor, "temporal_patch_size", None) or 1
            options["num_frames"] = source.num_frames // step * step
        return processor, options


def _possible_rate(fps: float, source: Source) -> float:
    """Return the rate, or the nearest one by which a short video gives at least one frame and at most those it has."""
    count = int(source.num_frames / source.frame_rate * fps)
    if 1 <= count <= source.num_frames:
        return fps
    possible = min(max(count, 1), source.num_frames)
    return (possible + 0.5) * source.frame_rate / source.num_frames  # the processor rounds the count down


def spread(num_frames: int, count: int) -> list[int]:
    """Return `count` indices that are spread evenly over `num_frames`, the first and the last among them."""
    indices: list[int] = np.linspace(0, num_frames - 1, count).round().astype(int).tolist()
    return indices
