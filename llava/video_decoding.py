"""Decoding chosen frames of a video file with PyAV or decord.

PyAV decodes each group of pictures from its key frame to the last frame wanted there, and leaves out what no frame
depends on. decord counts frames from the key frame it seeks to, which is exact only where every frame stored after a
key frame is also shown after it; PyAV reads the files where it is not.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from llava.frame_resizing import FrameResizing
from llava.video_opening import VideoReadError, open_video, printable
from llava.video_packets import PacketList

logger = logging.getLogger(__name__)

BACKENDS = ("pyav", "decord")

_FRAMES_PER_BATCH = 8  # read by decord before they are resized


class DecodedFrames(NamedTuple):
    """Frames, and what it took to get them."""

    pixels: NDArray[np.uint8]  # RGB (T, h, w, 3), upright; (T, S, S, 3) where they are resized
    num_decoded: int | None  # frames decoded for them; None where the decoder does not say


def read_frames(
    path: str, indices: Sequence[int], packets: PacketList, backend: str, resizing: FrameResizing | None = None
) -> DecodedFrames:
    """Decode the frames at ascending `indices` (they may repeat), and resize each before more are decoded.

    Raises:
        VideoReadError: If a frame is not decoded.
        av.FFmpegError: If the data is damaged.
    """
    if backend == "decord" and packets.closed:
        pixels = _read_with_decord(path, indices, packets.num_frames, resizing)
        if pixels is not None:
            return DecodedFrames(pixels, None)
    return _read_with_pyav(path, indices, packets, resizing)


def _read_with_decord(
    path: str, indices: Sequence[int], num_frames: int, resizing: FrameResizing | None
) -> NDArray[np.uint8] | None:
    """Frames read by decord, or None where decord does not manage (some widths, newer codecs, other frame counts)."""
    import decord  # noqa: PLC0415 - loads an FFmpeg of its own, which users of PyAV alone need not

    try:
        reader = decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=1)
        if len(reader) == num_frames:
            if resizing is None:
                return reader.get_batch(indices).asnumpy()
            starts = range(0, len(indices), _FRAMES_PER_BATCH)
            batches = (reader.get_batch(indices[start : start + _FRAMES_PER_BATCH]).asnumpy() for start in starts)
            return np.stack([resizing(frame) for batch in batches for frame in batch])
        reason = f"it counts {len(reader)} frames, not {num_frames}"
    except decord.DECORDError as error:
        reason = str(error).splitlines()[0]
    except UnicodeEncodeError:
        reason = "its name is not UTF-8"
    logger.info("decord does not manage %s, PyAV reads it: %s", printable(path), reason)
    return None


def _read_with_pyav(
    path: str, indices: Sequence[int], packets: PacketList, resizing: FrameResizing | None
) -> DecodedFrames:
    """Frames read by PyAV: from the key frames before them, or else by decoding from the start.

    Raises:
        VideoReadError: If a frame is not decoded.
    """
    wanted = set(indices)
    found: dict[int, NDArray[np.uint8]] = {}
    num_decoded = 0
    for frames_of in (_frames_from_key_frames, _frames_from_start) if packets.key_times else (_frames_from_start,):
        with open_video(path) as (container, stream):
            for index, frame in frames_of(container, stream, sorted(wanted - found.keys()), packets):
                num_decoded += 1
                if index in wanted:
                    pixels = _rgb(frame, stream)
                    found[index] = pixels if resizing is None else resizing(pixels)
        if len(found) == len(wanted):
            return DecodedFrames(np.stack([found[index] for index in indices]), num_decoded)
    raise VideoReadError(path, f"frame {min(wanted - found.keys())} of {packets.num_frames} cannot be decoded")


def _frames_from_key_frames(
    container: InputContainer, stream: av.VideoStream, wanted: list[int], packets: PacketList
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every frame that is decoded for the ascending `wanted` ones, with its index; -1 if it is none of them."""
    for key_time, group in groupby(wanted, packets.key_time):
        index_at = {packets.times[index]: index for index in group}
        container.seek(key_time, stream=stream)
        for frame in _decode_until(container, stream, set(index_at)):
            yield index_at.get(frame.pts, -1), frame


def _decode_until(container: InputContainer, stream: av.VideoStream, times: set[int]) -> Iterator[av.VideoFrame]:
    """Frames from here to the last of those that are shown at `times`, without those that none of them depends on.

    Packets are stored in the order of decoding, so nothing after the last packet wanted is needed.
    """
    can_skip = _marks_references(stream.codec_context)
    for packet in container.demux(stream):
        if not packet.size:  # the end of the file, where there should be none
            break
        if can_skip:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in times else "NONREF"
        yield from stream.decode(packet)
        times.discard(packet.pts)
        if not times:
            break
    yield from stream.decode(None)


def _marks_references(decoder: av.VideoCodecContext) -> bool:
    """Whether the codec says of each frame, reliably, if another one depends on it.

    HEVC does where there is a single temporal sub-layer; its configuration record tells their number
    (ISO/IEC 14496-15, 8.3.2.1: byte 0 is the version, bits 5 to 3 of byte 21 are numTemporalLayers).
    """
    if decoder.name == "hevc":
        record = decoder.extradata or b""
        return len(record) > 21 and record[0] == 1 and record[21] >> 3 & 7 == 1
    return decoder.name == "h264"


def _frames_from_start(
    container: InputContainer, stream: av.VideoStream, wanted: list[int], packets: PacketList
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every frame up to the last wanted, with its index: by its time where that is known, else by counting."""
    index_at = {time: index for index, time in enumerate(packets.times)}
    for count, frame in enumerate(container.decode(stream)):
        index = index_at.get(frame.pts, -1) if index_at else count
        yield index, frame
        if index >= wanted[-1]:
            return


def _rgb(frame: av.VideoFrame, stream: av.VideoStream) -> NDArray[np.uint8]:
    """Upright pixels (h, w, 3); the frame's own colour matrix is honoured, as decord does."""
    pixels = frame.to_ndarray(format="rgb24", width=stream.width, height=stream.height, dst_colorspace="DEFAULT")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
