"""Which frames of a video are read, by the options of `llava.video.read_video` and `read_frame_folder`."""

import importlib
import logging
from collections.abc import Sequence

import numpy as np

from llava.frame_resizing import FrameResizing
from llava.frame_sampling import (
    largest_distance,
    sample_frames,
    sample_frames_at_rate,
    sample_frames_by_time,
    sample_nearest_frames,
)
from llava.video_decoding import BACKENDS
from llava.video_opening import printable
from llava.video_packets import PacketList

logger = logging.getLogger(__name__)

INDEX, TIME, NEAREST = "index", "time", "nearest"
SAMPLINGS = (INDEX, TIME, NEAREST)
_LARGEST_DISTANCE = 1.0  # s between frames sampled by index and by time, above which we warn


def check_options(
    max_frames_num: int = 64,
    fps: float | None = None,
    force_sample: bool = False,
    backend: str = "pyav",
    frame_rate: float = 1.0,
    resizing: FrameResizing | None = None,
    sampling: str = "index",
    indices: Sequence[int] | None = None,
) -> None:
    """Check the options of `read_video` and `read_frame_folder` without a video.

    Args:
        max_frames_num: See `read_video`, also for all others.
        fps: Frames per second.
        force_sample: Whether short videos repeat frames.
        backend: "pyav" or "decord", which must be installed.
        frame_rate: Pictures per second of a folder.
        resizing: Resizing of frames.
        sampling: One of `SAMPLINGS`.
        indices: Frames to read.

    Raises:
        ValueError: If an option is out of range.
        TypeError: If an option has the wrong type.
        ImportError: If the backend cannot be imported.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    if sampling == NEAREST and (fps is not None or force_sample):
        raise ValueError("sampling=nearest always takes max_frames_num frames: leave fps and force_sample out")
    if backend == "decord":
        importlib.import_module("decord")
    if indices is not None and (not indices or min(indices) < 0 or list(indices) != sorted(indices)):
        raise ValueError(f"indices must be at least one, none below 0, ascending, got {indices}")
    if resizing is not None:
        resizing(np.zeros((1, 1, 3), np.uint8))
    choose_frames(1, frame_rate, max_frames_num, fps, force_sample, usual_fps=1.0)


def choose_shown(
    shown: PacketList, max_frames_num: int, fps: float | None, force_sample: bool, sampling: str
) -> list[int]:
    """Choose frames of a file by index, or at even times up to the limit if it declares no rate."""
    if sampling == NEAREST:
        return sample_nearest_frames(len(shown.times), 1.0, max_frames_num)[0]
    if sampling == TIME:
        return sample_frames_by_time(shown.times, shown.duration, max_frames_num, fps, force_sample)
    num_frames, rate = len(shown.times), shown.frame_rate
    if rate is None:
        by_time = sample_frames_by_time(shown.times, shown.duration, num_frames + max_frames_num, fps)
        if len(by_time) <= max_frames_num and not force_sample:
            return by_time
        force_sample, fps, rate = True, None, 1.0  # evenly spread frames need no rate
    return choose_frames(num_frames, rate, max_frames_num, fps, force_sample, usual_fps=1.0)[0]


def warn_if_uneven(
    path: str, shown: PacketList, indices: list[int], max_frames_num: int, fps: float | None, force_sample: bool
) -> None:
    """Warn if frames sampled by time would differ by more than a second."""
    by_time = sample_frames_by_time(shown.times, shown.duration, max_frames_num, fps, force_sample)
    times, others = ([shown.times[index] for index in chosen] for chosen in (indices, by_time))
    distance = largest_distance(times, others, shown.times[-1])
    if distance > _LARGEST_DISTANCE:
        logger.warning(
            "%s: frames taken by index are up to %.1f s away from those taken by time (%d frames, not %d), as its "
            "times are uneven or its rate is not a whole number. sampling=time takes them by time",
            printable(path),
            distance,
            len(times),
            len(others),
        )


def choose_frames(
    num_frames: int, frame_rate: float, max_frames_num: int, fps: float | None, force_sample: bool, usual_fps: float
) -> tuple[list[int], list[float]]:
    """Choose indices and times by the rule for `fps`, or by that of LLaVA-Video at `usual_fps` if it is None.

    Raises:
        ValueError: If both `fps` and `force_sample` are given, or a number is out of its range.
    """
    if fps is None:
        return sample_frames(num_frames, frame_rate, max_frames_num, usual_fps, force_sample)
    if force_sample:
        raise ValueError("give fps or force_sample, not both: force_sample spreads frames whatever the rate")
    return sample_frames_at_rate(num_frames, frame_rate, max_frames_num, fps)
