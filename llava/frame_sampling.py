"""Rules that sample frames of a video: those of LLaVA-Video, of NVILA and of STTM's evaluation.

They differ by a few frames in nearly every video, so results are comparable only under the same rule.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

_ROUNDING = 0.001  # s by which containers may round times


def sample_frames(
    num_frames: int, frame_rate: float, max_frames_num: int, fps: float = 1.0, force_sample: bool = False
) -> tuple[list[int], list[float]]:
    """Choose frames like LLaVA-Video: every n-th, or evenly spread ones if that would exceed `max_frames_num`.

    The step n is a whole number, round(frame_rate / fps) and at least 1. Their times are the nominal ones
    (0, 1 s, 2 s, ... at 1 fps), as in the prompts of LLaVA-Video. Evenly spread frames include the first and the last;
    positions between frames are cut down to the frame before.

    Args:
        num_frames: Number of frames in the video, at least 1.
        frame_rate: Rate of the video, in frames per second, above 0.
        max_frames_num: Maximum number of frames to choose, at least 1.
        fps: Frames to choose per second, above 0.
        force_sample: Whether to always choose `max_frames_num` evenly spread frames.

    Returns:
        Indices in frames, and times in seconds.

    Raises:
        ValueError: If `max_frames_num` or `fps` is too small.
    """
    _check(max_frames_num, fps)
    step = round(frame_rate / fps)
    indices = list(range(0, num_frames, max(step, 1)))
    if force_sample or len(indices) > max_frames_num:
        return _spread(num_frames, frame_rate, max_frames_num)
    if step < 1:  # the video has fewer frames per second than fps: choose all of them, at their true times
        return indices, [index / frame_rate for index in indices]
    return indices, [index / step / fps for index in indices]


def sample_frames_at_rate(
    num_frames: int, frame_rate: float, max_frames_num: int, fps: float
) -> tuple[list[int], list[float]]:
    """Choose frames like STTM: the first one at or after every 1/fps seconds, and the last one.

    The step is frame_rate / fps, not rounded. If the video has fewer frames per second than `fps`, frames repeat. If
    these exceed `max_frames_num`, that many evenly spread frames are chosen instead, including the first and the last;
    positions between frames are rounded down. Times are the true ones.

    Source: the sampling called F-<max_frames_num>_fps-<fps> in STTM, https://github.com/HYUNJS/STTM

    Args:
        num_frames: Number of frames in the video, at least 1.
        frame_rate: Rate of the video, in frames per second, above 0.
        max_frames_num: Maximum number of frames to choose, at least 1.
        fps: Frames to choose per second, above 0.

    Returns:
        Indices in frames, and times in seconds.

    Raises:
        ValueError: If `max_frames_num` or `fps` is too small.
    """
    _check(max_frames_num, fps)
    step, last = frame_rate / fps, num_frames - 1
    indices = [math.ceil(number * step) for number in range(math.ceil(last / step))]
    if not indices or indices[-1] != last:
        indices.append(last)
    if len(indices) > max_frames_num:
        return _spread(num_frames, frame_rate, max_frames_num)
    return indices, [index / frame_rate for index in indices]


def sample_nearest_frames(num_frames: int, frame_rate: float, max_frames_num: int) -> tuple[list[int], list[float]]:
    """Choose frames like NVILA: always `max_frames_num` evenly spread ones, the first and the last included.

    Positions between frames are rounded to the nearest frame, and to the even one in the middle. Short videos repeat
    frames. Times are the true ones.

    Source: https://github.com/NVlabs/VILA (April 2025)

    Args:
        num_frames: Number of frames in the video, at least 1.
        frame_rate: Rate of the video, in frames per second, above 0.
        max_frames_num: Number of frames to choose, at least 1.

    Returns:
        Indices in frames, and times in seconds.

    Raises:
        ValueError: If `max_frames_num` is too small.
    """
    _check(max_frames_num, 1.0)
    indices = np.linspace(0, num_frames - 1, max_frames_num).round().astype(int).tolist()
    return indices, [index / frame_rate for index in indices]


def sample_frames_by_time(
    shown_at: Sequence[float],
    duration: float,
    max_frames_num: int,
    fps: float | None = None,
    force_sample: bool = False,
) -> list[int]:
    """Choose the frames that a player shows every 1/fps seconds after the first one, however uneven their times are.

    A frame that is shown for a long time repeats. If these exceed `max_frames_num`, that many frames at evenly spread
    times are chosen instead, including the first and the last.

    Args:
        shown_at: Time of each frame, in seconds, ascending; at least one.
        duration: End of the last frame, in seconds.
        max_frames_num: Maximum number of frames to choose, at least 1.
        fps: Frames to choose per second, above 0, besides the last frame, as in `sample_frames_at_rate`; None chooses
            one per second and not the last, as in `sample_frames`.
        force_sample: Whether to always choose `max_frames_num` frames at evenly spread times.

    Returns:
        Indices in frames.

    Raises:
        ValueError: If `max_frames_num` or `fps` is too small.
    """
    rate = 1.0 if fps is None else fps
    _check(max_frames_num, rate)
    first, last = shown_at[0], shown_at[-1]
    end = max(last, duration - 0.5 / rate) if fps is None else last  # durations are often estimated
    moments = [first + number / rate for number in range(math.floor((end - first + _ROUNDING) * rate) + 1)]
    if fps is not None and last - moments[-1] > _ROUNDING:
        moments.append(last)
    if force_sample or len(moments) > max_frames_num:
        moments = np.linspace(first, last, max_frames_num).tolist()
    return [max(bisect_right(shown_at, moment + _ROUNDING) - 1, 0) for moment in moments]


def largest_distance(times: Sequence[float], others: Sequence[float], last: float) -> float:
    """Compute the seconds by which two choices of frames differ, pair by pair and from each to the nearest other.

    Args:
        times: Times of the chosen frames, in seconds, ascending; at least one.
        others: Times of the frames in the other choice.
        last: Time of the video's last frame, which either choice may include or not.
    """
    paired = max(abs(one - other) for one, other in zip(times, others, strict=False))
    distances = np.abs(np.asarray(times)[:, None] - np.asarray([*others, last])[None])
    return max(paired, float(distances.min(0).max()), float(distances.min(1).max()))


def _check(max_frames_num: int, fps: float) -> None:
    if max_frames_num < 1:
        raise ValueError(f"max_frames_num must be at least 1, got {max_frames_num}")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")


def _spread(num_frames: int, frame_rate: float, count: int) -> tuple[list[int], list[float]]:
    indices = np.linspace(0, num_frames - 1, count).astype(int).tolist()
    return indices, [index / frame_rate for index in indices]
