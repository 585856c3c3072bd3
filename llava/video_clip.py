"""Frames sampled from a video, and what is known of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
