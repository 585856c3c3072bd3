"""The frames of a video, counted before any of them is decoded."""

from dataclasses import dataclass
from os import PathLike, fsdecode
from pathlib import Path

import av

from llava.frame_folder import pictures
from llava.video import regular_file
from llava.video_opening import VideoReadError
from llava.video_packets import list_packets


@dataclass(frozen=True)
class FrameList:
    """What is known of a video before it is decoded.

    Attributes:
        num_frames: Number of frames, at least 1.
        frame_rate: Rate that the file declares, or else the mean one, in frames per second.
        duration: End of the last frame, in seconds from the start of the file.
    """

    num_frames: int
    frame_rate: float
    duration: float


def list_frames(path: str | PathLike[str], frame_rate: float = 3.0) -> FrameList:
    """Count the frames of a video file, or the pictures of a folder, without decoding them.

    Args:
        path: The file or folder.
        frame_rate: Pictures per second of a folder, see `read_frame_folder`.

    Raises:
        VideoReadError: See `read_video` and `read_frame_folder`.
    """
    if Path(fsdecode(path)).is_dir():
        count = len(pictures(fsdecode(path)))
        return FrameList(count, frame_rate, count / frame_rate)
    name = regular_file(path)
    try:
        packets = list_packets(name)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(name, error.strerror or str(error)) from error
    return FrameList(len(packets.times), packets.rate, packets.duration)
