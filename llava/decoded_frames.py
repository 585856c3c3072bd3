"""Frames on their way out of a decoder: converted, resized and watched for signs of damage.

The signs are the decoder's own: frames that it calls corrupt, packets that it refuses, and frames that it leaves out.
H.264, MPEG-4 and MPEG-2 show nearly all damage so, WMV most of it, HEVC only where it leaves frames out; VP8, VP9, AV1
and Motion JPEG hardly any.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import numpy as np
from numpy.typing import NDArray

from llava.frame_resizing import FrameResizing
from llava.video_pixels import rgb


@dataclass
class DecodedFrames:
    """Frames that were wanted, by index, and what it took to get them.

    Attributes:
        resizing: How frames are resized; None keeps their size.
        size: (width, height) of the first frame before it is turned upright; None until one is decoded.
        pixels: RGB (h, w, 3), upright, or (S, S, 3) where they are resized, by index.
        num_decoded: Frames decoded for them.
        num_damaged: Signs of damage.
        num_refused: Packets that the decoder refused.
    """

    resizing: FrameResizing | None = None
    size: tuple[int, int] | None = None
    pixels: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    num_decoded: int = 0
    num_damaged: int = 0
    num_refused: int = 0

    @property
    def num_signs(self) -> int:
        """Signs of damage and packets refused, together."""
        return self.num_damaged + self.num_refused

    def keep(self, index: int, frame: av.VideoFrame) -> None:
        """Convert and resize a frame."""
        pixels = rgb(frame, self.size or (frame.width, frame.height))
        self.pixels[index] = pixels if self.resizing is None else self.resizing(pixels)

    def keep_instead(self, index: int, frame: av.VideoFrame) -> None:
        """Convert and resize a frame that is shown in place of one that damage has swallowed: a sign of damage."""
        self.num_damaged += 1
        self.keep(index, frame)

    def take_in(
        self, stream: av.VideoStream, packet: av.Packet | None, first: int | None = None, is_expected: bool = True
    ) -> Iterator[av.VideoFrame]:
        """Frames that a packet, or the end of the packets (None), brings out of the decoder.

        Args:
            stream: The stream.
            packet: The packet.
            first: Frames shown before this time, in the stream's time base, may depend on what was left out on purpose,
                and are no sign of damage; None has none of them.
            is_expected: Whether a packet that is refused is a sign of damage.
        """
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            self.num_refused += is_expected
            self.num_damaged += is_expected
            return
        for frame in frames:
            self.num_decoded += 1
            self.size = self.size or (frame.width, frame.height)
            if first is None or (frame.pts is not None and frame.pts >= first):
                self.num_damaged += frame.is_corrupt
            yield frame
