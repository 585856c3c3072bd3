"""Reading of sampled frames from a video file or a folder of pictures."""

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fsdecode
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from llava.frame_resizing import FrameResizing
from llava.frame_sampling import largest_distance, sample_frames, sample_frames_at_rate, sample_frames_by_time
from llava.video_decoding import BACKENDS, read_frames
from llava.video_opening import VideoReadError, printable
from llava.video_packets import PacketList, list_packets

logger = logging.getLogger(__name__)

__all__ = [
    "BACKENDS",
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

SAMPLINGS = ("index", "time")
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
_LARGEST_DISTANCE = 1.0  # s between frames sampled by index and by time, above which we warn


@dataclass(frozen=True)
class VideoClip:
    """Frames sampled from a video.

    Attributes:
        frames: uint8 RGB (T, h, w, 3), upright, that is, after applying rotation metadata; (T, S, S, 3) if resized.
        indices: Position of each frame in the file, in frames, counted from 0 in the order of display; ascending.
        times: Time of each frame according to the file, in seconds from the start of the file.
        duration: End of the last frame of the video, in seconds from the start of the file.
        num_decoded: Number of frames that were decoded to get these; None for pictures in a folder.
        num_damaged: Number of signs of damage that the decoder reported; some codecs report none, see
            `llava.decoded_frames`.
        num_frames: Number of frames of the file; 0 if unknown.
        frame_rate: Its rate, see `FrameList`; 0 if unknown.
    """

    frames: NDArray[np.uint8]
    indices: list[int]
    times: list[float]
    duration: float
    num_decoded: int | None = None
    num_damaged: int = 0
    num_frames: int = 0
    frame_rate: float = 0


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
        max_frames_num: Most frames to return, at least 1.
        fps: Frames to take per second of video, above 0, as `sample_frames_at_rate` chooses them; None takes one, as
            `sample_frames` does for LLaVA-Video.
        force_sample: Always take exactly `max_frames_num` frames, evenly spread (short videos repeat frames).
        backend: "pyav" or "decord". They give the same indices, and pixels equal up to colour-conversion rounding.
            What decord would not read exactly, PyAV reads in its place. decord ends the whole process on some damaged
            files; `llava.video_process.read_video_apart` survives that.
        resizing: Resize every frame as soon as it is decoded; None keeps its size.
        sampling: "index" counts frames and uses the rate that the file declares, like LLaVA-Video; "time" chooses the
            frames that are shown at even times, see `sample_frames_by_time`. If the two differ by more than a second,
            "index" logs a warning. Files that declare no rate are sampled by time.
        indices: The frames to read, ascending, instead of those that the rules above choose; they may repeat. If the
            file turns out to have fewer frames than `list_frames` says, the last one stands in for those behind it.

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
        return _choose_shown(shown, max_frames_num, fps, force_sample, sampling)

    try:
        shown, chosen, decoded = read_frames(name, list_packets(name), choose, backend, resizing)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(name, error.strerror or str(error)) from error
    if sampling == "index" and indices is None:
        _warn_if_uneven(name, shown, chosen, max_frames_num, fps, force_sample)
    times = [shown.times[index] for index in chosen]
    frames = np.stack([decoded.pixels[index] for index in chosen])
    facts = (shown.duration, decoded.num_decoded, decoded.num_damaged, len(shown.times), shown.rate)
    return VideoClip(frames, chosen, times, *facts)


def pictures(folder: str) -> list[Path]:
    """List the pictures of a folder in the order of their names.

    Raises:
        VideoReadError: If there are none.
    """
    files = sorted(file for file in Path(folder).glob("*") if file.suffix.lower() in FRAME_SUFFIXES)
    if not files:
        raise VideoReadError(folder, "no frames: the folder holds no JPEG or PNG files")
    return files


def sampled_indices(
    path: str | PathLike[str],
    max_frames_num: int = 64,
    fps: float | None = None,
    force_sample: bool = False,
    sampling: str = "index",
) -> list[int]:
    """Return the positions in a file of the frames that `read_video` samples, by its packets, without decoding any.

    Args:
        path: Video file.
        max_frames_num: See `read_video`, also for the others.
        fps: Frames to take per second of video.
        force_sample: Whether to take exactly `max_frames_num` frames.
        sampling: "index" or "time".

    Raises:
        VideoReadError: If the file is missing, is not a video, is truncated, or has no frame.
        ValueError: If an option is out of range.
    """
    check_options(max_frames_num, fps, force_sample, sampling=sampling)
    name = regular_file(path)
    try:
        return _choose_shown(list_packets(name), max_frames_num, fps, force_sample, sampling)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(name, error.strerror or str(error)) from error


def regular_file(path: str | PathLike[str]) -> str:
    """Return the name of a file.

    Raises:
        VideoReadError: If it is missing, or no regular file.
    """
    name = fsdecode(path)
    if not Path(name).is_file():
        kind = "is a directory" if Path(name).is_dir() else "is no regular file"
        raise VideoReadError(name, kind if Path(name).exists() else "no such file")
    return name


def _choose_shown(
    shown: PacketList, max_frames_num: int, fps: float | None, force_sample: bool, sampling: str
) -> list[int]:
    """Choose frames of a file by index, or at even times up to the limit if it declares no rate."""
    if sampling == "time":
        return sample_frames_by_time(shown.times, shown.duration, max_frames_num, fps, force_sample)
    num_frames, rate = len(shown.times), shown.frame_rate
    if rate is None:
        by_time = sample_frames_by_time(shown.times, shown.duration, num_frames + max_frames_num, fps)
        if len(by_time) <= max_frames_num and not force_sample:
            return by_time
        force_sample, fps, rate = True, None, 1.0  # evenly spread frames need no rate
    return _choose_frames(num_frames, rate, max_frames_num, fps, force_sample, usual_fps=1.0)[0]


def _warn_if_uneven(
    path: str, shown: PacketList, indices: list[int], max_frames_num: int, fps: float | None, force_sample: bool
) -> None:
    """Warn if frames sampled by time would differ by more than a second."""
    by_time = sample_frames_by_time(shown.times, shown.duration, max_frames_num, fps, force_sample)
    times, others = ([shown.times[index] for index in chosen] for chosen in (indices, by_time))
    distance = largest_distance(times, others, shown.times[-1])
    if distance > _LARGEST_DISTANCE:
        logger.warning(
            "%s: frames taken by index are up to %.1f s away from those taken by time (%d frames, not %d), as its "
            "times are uneven or its rate is no whole number. sampling=time takes them by time",
            printable(path),
            distance,
            len(times),
            len(others),
        )


def read_frame_folder(
    folder: str | PathLike[str],
    max_frames_num: int = 64,
    fps: float | None = None,
    force_sample: bool = False,
    frame_rate: float = 3.0,
    resizing: FrameResizing | None = None,
    indices: Sequence[int] | None = None,
) -> VideoClip:
    """Read a video from a folder with one picture per frame, in the order of the file names.

    Args:
        folder: Folder of JPEG or PNG files, all of the same size.
        max_frames_num: Most frames to return; if there are more, the returned ones are spread evenly.
        fps: Frames to take per second of video, above 0, as `sample_frames_at_rate` chooses them; None takes all.
        force_sample: Always take exactly `max_frames_num` frames, evenly spread.
        frame_rate: Pictures per second of video; 3 is that of TVQA, the part of MVBench which comes as pictures.
        resizing: Resize every picture as soon as it is read; None keeps its size.
        indices: The pictures to read, ascending, instead of those that the rules above choose.

    Raises:
        VideoReadError: If there is no picture, or one cannot be read or has another size.
        ValueError: If an option is out of range.
    """
    name = fsdecode(folder)
    files = pictures(name)
    if indices is None:
        chosen, _ = _choose_frames(len(files), frame_rate, max_frames_num, fps, force_sample, usual_fps=frame_rate)
    else:
        chosen = [min(index, len(files) - 1) for index in indices]
    times = [index / frame_rate for index in chosen]
    frames, sizes = [], set()
    try:
        for index in chosen:
            with Image.open(files[index]) as file:
                picture = file.convert("RGB")
            sizes.add(picture.size)
            frames.append(np.asarray(picture if resizing is None else resizing.resize(picture)))
    except (UnidentifiedImageError, OSError) as error:
        raise VideoReadError(name, str(error)) from error
    if len(sizes) > 1:
        raise VideoReadError(name, "the pictures differ in size")
    facts = (len(files) / frame_rate, None, 0, len(files), frame_rate)
    return VideoClip(np.stack(frames), chosen, times, *facts)


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
        sampling: "index" or "time".
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
    if backend == "decord":
        importlib.import_module("decord")
    if indices is not None and (not indices or min(indices) < 0 or list(indices) != sorted(indices)):
        raise ValueError(f"indices must be at least one, none below 0, ascending, got {indices}")
    if resizing is not None:
        resizing(np.zeros((1, 1, 3), np.uint8))
    _choose_frames(1, frame_rate, max_frames_num, fps, force_sample, usual_fps=1.0)


def _choose_frames(
    num_frames: int, frame_rate: float, max_frames_num: int, fps: float | None, force_sample: bool, usual_fps: float
) -> tuple[list[int], list[float]]:
    """Choose indices and times by the rule for `fps`, or by that of LLaVA-Video at `usual_fps` if it is None."""
    if fps is None:
        return sample_frames(num_frames, frame_rate, max_frames_num, usual_fps, force_sample)
    if force_sample:
        raise ValueError("give fps or force_sample, not both: force_sample spreads frames whatever the rate")
    return sample_frames_at_rate(num_frames, frame_rate, max_frames_num, fps)
