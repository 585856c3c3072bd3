"""DecodedFrames: frames from a decoder, converted, resized and checked for signs of damage.

The signs come from the decoder: frames that it marks as corrupt, packets that it refuses, and frames that it omits.
H.264, MPEG-4 and MPEG-2 reveal nearly all damage this way, WMV most of it, HEVC only omitted frames, and VP8, VP9, AV1
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
    """The chosen frames by index, and statistics of decoding them.

    Attributes:
        resizing: Resizing of frames; None keeps their size.
        size: (width, height) of the first frame before rotation; None until a frame is decoded.
        pixels: RGB (h, w, 3), upright, or (S, S, 3) if resized, by index.
        num_decoded: Number of frames that were decoded.
        num_damaged: Number of signs of damage.
        num_refused: Number of packets that the decoder refused.
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
        """Decode a packet, or the end of the packets (None), and yield the frames that the decoder returns.

        Args:
            stream: The stream.
            packet: The packet.
            first: Frames shown before this time, in the stream's time base, may depend on packets that were skipped, so
                they are not a sign of damage; None if there are no such frames.
            is_expected: Whether a refused packet is a sign of damage.

        Raises:
            MemoryError: If the decoder gets no memory, which is not the packet's fault.
        """
        try:
            frames = stream.decode(packet)
        except MemoryError:
            raise
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
