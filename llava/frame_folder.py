"""Reading of sampled frames from a folder with one picture per frame."""

from collections.abc import Sequence
from os import PathLike, fsdecode
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from llava.frame_choice import INDEX, NEAREST, choose_frames
from llava.frame_resizing import FrameResizing
from llava.frame_sampling import sample_nearest_frames
from llava.video_clip import VideoClip
from llava.video_opening import VideoReadError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


def pictures(folder: str) -> list[Path]:
    """List the pictures of a folder in the order of their names.

    Raises:
        VideoReadError: If there are none.
    """
    files = sorted(file for file in Path(folder).glob("*") if file.suffix.lower() in FRAME_SUFFIXES)
    if not files:
        raise VideoReadError(folder, "no frames: the folder holds no JPEG or PNG files")
    return files


def choose_pictures(
    count: int,
    max_frames_num: int,
    fps: float | None = None,
    force_sample: bool = False,
    frame_rate: float = 3.0,
    sampling: str = INDEX,
) -> list[int]:
    """Return the positions of the pictures that `read_frame_folder` reads.

    Args:
        count: Number of pictures.
        max_frames_num: See `read_frame_folder`, also for the others.
        fps: Frames to take per second of video.
        force_sample: Whether to take exactly `max_frames_num` frames.
        frame_rate: Pictures per second of video.
        sampling: "nearest", or another rule.
    """
    if sampling == NEAREST:
        return sample_nearest_frames(count, frame_rate, max_frames_num)[0]
    return choose_frames(count, frame_rate, max_frames_num, fps, force_sample, usual_fps=frame_rate)[0]


def read_frame_folder(
    folder: str | PathLike[str],
    max_frames_num: int = 64,
    fps: float | None = None,
    force_sample: bool = False,
    frame_rate: float = 3.0,
    resizing: FrameResizing | None = None,
    sampling: str = INDEX,
    indices: Sequence[int] | None = None,
) -> VideoClip:
    """Read a video from a folder with one picture per frame, in the order of the file names.

    Args:
        folder: Folder of JPEG or PNG files, all of the same size.
        max_frames_num: Maximum number of frames to return; if there are more, the returned ones are spread evenly.
        fps: Frames to take per second of video, above 0, as `sample_frames_at_rate` chooses them; None takes all.
        force_sample: Always take exactly `max_frames_num` frames, evenly spread.
        frame_rate: Pictures per second of video; 3 is that of TVQA, the part of MVBench which comes as pictures.
        resizing: Resize every picture as soon as it is read; None keeps its size.
        sampling: "nearest" spreads `max_frames_num` frames as `sample_nearest_frames` does; else the rules above hold.
        indices: The pictures to read, ascending, instead of those that the rules above choose.

    Raises:
        VideoReadError: If there is no picture, or one cannot be read or has another size.
        ValueError: If an option is out of range.
    """
    name = fsdecode(folder)
    files = pictures(name)
    if indices is not None:
        chosen = [min(index, len(files) - 1) for index in indices]
    else:
        chosen = choose_pictures(len(files), max_frames_num, fps, force_sample, frame_rate, sampling)
    times = [index / frame_rate for index in chosen]
    frames = _read_pictures(name, [files[index] for index in chosen], resizing)
    facts = (len(files) / frame_rate, None, 0, len(files), frame_rate)
    return VideoClip(frames, chosen, times, *facts)


def _read_pictures(folder: str, files: Sequence[Path], resizing: FrameResizing | None) -> np.ndarray:
    """Read pictures of one size: (T, H, W, 3) uint8, after resizing."""
    frames, sizes = [], set()
    try:
        for path in files:
            with Image.open(path) as file:
                picture = file.convert("RGB")
            sizes.add(picture.size)
            frames.append(np.asarray(picture if resizing is None else resizing.resize(picture)))
    except (UnidentifiedImageError, OSError) as error:
        raise VideoReadError(folder, str(error)) from error
    if len(sizes) > 1:
        raise VideoReadError(folder, "the pictures differ in size")
    return np.stack(frames)
