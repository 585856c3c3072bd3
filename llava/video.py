"""Frames of a video file: which ones are sampled, and the clip they make."""

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from llava.video_decoding import BACKENDS, read_frames
from llava.video_packets import VideoReadError, list_packets

__all__ = ["BACKENDS", "VideoClip", "VideoReadError", "read_frame_folder", "read_video", "sample_frames"]

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class VideoClip:
    """Frames sampled from a video.

    Attributes:
        frames: uint8 RGB (T, h, w, 3), upright: rotation metadata is carried out.
        indices: Position of each frame in the file, in frames, counted from 0 in the order of display; ascending.
        times: Time of each frame, in seconds.
        duration: Length of the whole video, in seconds.
        num_decoded: Frames that were decoded to get these; None where the decoder does not say.
    """

    frames: NDArray[np.uint8]
    indices: list[int]
    times: list[float]
    duration: float
    num_decoded: int | None = None


def read_video(
    path: str | PathLike[str],
    max_frames_num: int = 64,
    fps: float = 1.0,
    force_sample: bool = False,
    backend: str = "pyav",
) -> VideoClip:
    """Read sampled frames of a video.

    Args:
        path: Video file.
        max_frames_num: Most frames to return, at least 1.
        fps: Frames to take per second of video, above 0.
        force_sample: Always take exactly `max_frames_num` frames, evenly spread (short videos repeat frames).
        backend: "pyav" or "decord". They give the same indices, and pixels equal up to colour-conversion rounding.
            What decord would not read exactly, PyAV reads in its place. decord ends the whole process on some damaged
            files; `llava.video_process.read_video_apart` survives that.

    Returns:
        The frames, their indices and times.

    Raises:
        VideoReadError: If the file is missing, is no video, is damaged or truncated, or shows no frame.
        ValueError: If an option is out of range.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    name = fspath(path)
    if not Path(name).is_file():
        kind = "is a directory" if Path(name).is_dir() else "is no regular file"
        raise VideoReadError(name, kind if Path(name).exists() else "no such file")
    try:
        packets = list_packets(name)
        indices, times = sample_frames(packets.num_frames, packets.frame_rate, max_frames_num, fps, force_sample)
        decoded = read_frames(name, indices, packets, backend)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(name, error.strerror or str(error)) from error
    duration = packets.num_frames / packets.frame_rate
    return VideoClip(decoded.pixels, indices, times, duration, decoded.num_decoded)


def read_frame_folder(
    folder: str | PathLike[str], max_frames_num: int = 64, frame_rate: float = 3.0, force_sample: bool = False
) -> VideoClip:
    """Read a video that lies in a folder as one picture per frame, in the order of the file names.

    Args:
        folder: Folder of JPEG or PNG files, all of one size.
        max_frames_num: Most frames to return; where there are more, they are spread evenly.
        frame_rate: Pictures per second of video; 3 is that of TVQA, the part of MVBench which comes as pictures.
        force_sample: Always take exactly `max_frames_num` frames, evenly spread.

    Raises:
        VideoReadError: If there is no picture, or one cannot be read or has another size.
        ValueError: If an option is out of range.
    """
    name = fspath(folder)
    files = sorted(file for file in Path(folder).glob("*") if file.suffix.lower() in FRAME_SUFFIXES)
    if not files:
        raise VideoReadError(name, "no frames: the folder holds no JPEG or PNG files")
    indices, times = sample_frames(len(files), frame_rate, max_frames_num, frame_rate, force_sample)
    try:
        frames = [np.asarray(Image.open(files[index]).convert("RGB")) for index in indices]
    except (UnidentifiedImageError, OSError) as error:
        raise VideoReadError(name, str(error)) from error
    if len({frame.shape for frame in frames}) > 1:
        raise VideoReadError(name, "the pictures differ in size")
    return VideoClip(np.stack(frames), indices, times, len(files) / frame_rate)


def sample_frames(
    num_frames: int, frame_rate: float, max_frames_num: int, fps: float = 1.0, force_sample: bool = False
) -> tuple[list[int], list[float]]:
    """Choose frames: `fps` per second, or evenly spread where that would be more than `max_frames_num`.

    The step between frames is a whole number, round(frame_rate / fps) and at least 1. Their times are the nominal ones
    (0, 1 s, 2 s, ... at 1 fps), as in the prompts of LLaVA-Video. Evenly spread frames include the first and the last;
    positions between frames are cut down to the frame before.

    Args:
        num_frames: Frames in the video, at least 1.
        frame_rate: Of the video, in frames per second, above 0.
        max_frames_num: Most frames to choose, at least 1.
        fps: Frames to choose per second, above 0.
        force_sample: Always spread `max_frames_num` frames evenly.

    Returns:
        Indices in frames, and times in seconds.

    Raises:
        ValueError: If `max_frames_num` or `fps` is too small.
    """
    if max_frames_num < 1:
        raise ValueError(f"max_frames_num must be at least 1, got {max_frames_num}")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    step = round(frame_rate / fps)
    indices = list(range(0, num_frames, max(step, 1)))
    if force_sample or len(indices) > max_frames_num:
        indices = np.linspace(0, num_frames - 1, max_frames_num).astype(int).tolist()
        return indices, [index / frame_rate for index in indices]
    if step < 1:  # fewer frames per second than asked for: all of them, at their true times
        return indices, [index / frame_rate for index in indices]
    return indices, [index / step / fps for index in indices]
