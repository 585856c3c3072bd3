"""Reading of sampled frames from a video file; frames of a folder of pictures are read by `llava.frame_folder`."""

from collections.abc import Sequence
from os import PathLike, fsdecode
from pathlib import Path

import av
import numpy as np

from llava.frame_choice import SAMPLINGS, check_options, choose_shown, warn_if_uneven
from llava.frame_folder import FRAME_SUFFIXES, choose_pictures, pictures, read_frame_folder
from llava.frame_resizing import FrameResizing
from llava.video_clip import VideoClip
from llava.video_decoding import BACKENDS, read_frames
from llava.video_opening import VideoReadError
from llava.video_packets import PacketList, list_packets

__all__ = [
    "BACKENDS",
    "FRAME_SUFFIXES",
    "SAMPLINGS",
    "VideoClip",
    "VideoReadError",
    "check_options",
    "pictures",
    "read_frame_folder",
    "read_video",
    "regular_file",
    "sampled_indices",
]


def read_video(
    path: str | PathLike[str],
    max_frames_num: int = 64,
    fps: float | None = None,
    force_sample: bool = False,
    backend: str = "pyav",
    resizing: FrameResizing | None = None,
    sampling: str = "index",
    indices: Sequence[int] | None = None,
) -> VideoClip:
    """Read sampled frames of a video.

    Args:
        path: Video file.
        max_frames_num: Maximum number of frames to return, at least 1.
        fps: Frames to take per second of video, above 0, as `sample_frames_at_rate` chooses them; None takes one, as
            `sample_frames` does for LLaVA-Video.
        force_sample: Always take exactly `max_frames_num` frames, evenly spread (short videos repeat frames).
        backend: "pyav" or "decord". They give the same indices, and pixels equal up to colour-conversion rounding.
            What decord would not read exactly, PyAV reads in its place. decord ends the whole process on some damaged
            files; `llava.video_process.read_video_apart` survives that.
        resizing: Resize every frame as soon as it is decoded; None keeps its size.
        sampling: "index" counts frames and uses the rate that the file declares, like LLaVA-Video; "time" chooses the
            frames that are shown at even times, see `sample_frames_by_time`. If the two differ by more than a second,
            "index" logs a warning. Files that declare no rate are sampled by time. "nearest" is the rule of
            `sample_nearest_frames`, without `fps` and `force_sample`.
        indices: The frames to read, ascending, instead of those that the rules above choose; they may repeat. If the
            file turns out to have fewer frames than `list_frames` says, the last one stands in for those after it.

    Returns:
        The frames, their indices and times.

    Raises:
        VideoReadError: If the file is missing, is not a video, is truncated, or has no frame.
        ValueError: If an option is out of range.
    """
    check_options(max_frames_num, fps, force_sample, backend, resizing=resizing, sampling=sampling, indices=indices)
    name = regular_file(path)

    def choose(shown: PacketList) -> list[int]:
        if indices is not None:
            return [min(index, len(shown.times) - 1) for index in indices]
        return choose_shown(shown, max_frames_num, fps, force_sample, sampling)

    try:
        shown, chosen, decoded = read_frames(name, list_packets(name), choose, backend, resizing)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(name, error.strerror or str(error)) from error
    if sampling == "index" and indices is None:
        warn_if_uneven(name, shown, chosen, max_frames_num, fps, force_sample)
    times = [shown.times[index] for index in chosen]
    frames = np.stack([decoded.pixels[index] for index in chosen])
    facts = (shown.duration, decoded.num_decoded, decoded.num_damaged, len(shown.times), shown.rate)
    return VideoClip(frames, chosen, times, *facts)


def sampled_indices(
    path: str | PathLike[str],
    max_frames_num: int = 64,
    fps: float | None = None,
    force_sample: bool = False,
    sampling: str = "index",
) -> list[int]:
    """Return the positions of the frames that `read_video` or `read_frame_folder` samples, without decoding any.

    Args:
        path: Video file, or folder of pictures.
        max_frames_num: See `read_video`, also for the others.
        fps: Frames to take per second of video.
        force_sample: Whether to take exactly `max_frames_num` frames.
        sampling: See `read_video`.

    Raises:
        VideoReadError: If the file is missing, is not a video, is truncated, or has no frame.
        ValueError: If an option is out of range.
    """
    check_options(max_frames_num, fps, force_sample, sampling=sampling)
    if Path(fsdecode(path)).is_dir():
        return choose_pictures(len(pictures(fsdecode(path))), max_frames_num, fps, force_sample, sampling=sampling)
    name = regular_file(path)
    try:
        return choose_shown(list_packets(name), max_frames_num, fps, force_sample, sampling)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(name, error.strerror or str(error)) from error


def regular_file(path: str | PathLike[str]) -> str:
    """Return the name of a file.

    Raises:
        VideoReadError: If it is missing, or is not a regular file.
    """
    name = fsdecode(path)
    if not Path(name).is_file():
        kind = "is a directory" if Path(name).is_dir() else "is not a regular file"
        raise VideoReadError(name, kind if Path(name).exists() else "no such file")
    return name
