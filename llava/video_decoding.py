"""Reading chosen frames of a video file with decord or PyAV.

The packets of the file are listed once, without decoding them. That list is the one source of the number of frames and
of their order, so both readers answer the same indices. decord counts frames from the key frame it seeks to, which is
exact only where every frame stored after a key frame is also shown after it; PyAV reads the files where it is not.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import av
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

BACKENDS = ("decord", "pyav")

_SEEKABLE_FORMATS = {"mov", "mp4", "matroska", "webm"}  # their packets carry the times at which frames are shown
_DECODER_THREADS = 4  # per file; more costs memory and hardly gains speed
_LONGEST_SILENT_TAIL = 1.0  # s by which the last frame of an intact file may end before the declared duration


class VideoReadError(Exception):
    """A file that does not give the frames asked for.

    Attributes:
        path: The file.
        reason: What is wrong with it, in one line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read video {path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["VideoReadError"], tuple[str, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class PacketList:
    """What the packets of a video stream say before anything is decoded.

    Attributes:
        num_frames: Frames that are shown, at least 1.
        frame_rate: Average rate, in frames per second, above 0.
        times: Time of each frame in the stream's time base, ascending; empty where packets do not say it.
        key_times: Times of the key frames, ascending; empty where `times` is.
        closed: True if every frame stored after a key frame is also shown after it.
    """

    num_frames: int
    frame_rate: float
    times: list[int]
    key_times: list[int]
    closed: bool


@dataclass(frozen=True, slots=True)
class _Packet:
    """The facts of one packet, without its data."""

    time: int | None  # when its frame is shown, in the stream's time base
    duration: int
    is_key: bool
    is_shown: bool
    is_cut_off: bool


def list_packets(path: str) -> PacketList:
    """Read the packets of the best video stream, without decoding and without keeping their data.

    Raises:
        VideoReadError: If there is no video stream, decoder, frame rate or frame, or the file is cut off.
        av.FFmpegError: If the file is no media file, or damaged.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        if rate <= 0:
            raise VideoReadError(path, "the video stream declares no frame rate")
        packets = [
            _Packet(packet.pts, packet.duration or 0, packet.is_keyframe, not packet.is_discard, packet.is_corrupt)
            for packet in container.demux(stream)
            if packet.size
        ]
        _check_complete(path, stream, packets)
        num_frames = sum(packet.is_shown for packet in packets)
        times = [packet.time for packet in packets if packet.is_shown and packet.time is not None]
        formats = container.format.name.split(",")
    if num_frames < len(packets) or len(set(times)) < len(packets) or _SEEKABLE_FORMATS.isdisjoint(formats):
        return PacketList(num_frames, rate, [], [], closed=False)
    ordered = sorted(times)
    latest = [
        ordered[0] - 1,
        *accumulate(times, max),
    ]  # before each packet, the last time shown by those stored earlier
    keys = [position for position, packet in enumerate(packets) if packet.is_key]
    closed = 0 in keys and all(latest[key] < times[key] == ordered[key] for key in keys)
    return PacketList(num_frames, rate, ordered, sorted(times[key] for key in keys), closed)


def read_frames(path: str, indices: Sequence[int], packets: PacketList, backend: str) -> NDArray[np.uint8]:
    """Decode the frames at ascending `indices` (they may repeat).

    Returns:
        uint8 RGB (T, h, w, 3), upright.

    Raises:
        VideoReadError: If a frame is not decoded.
        av.FFmpegError: If the data is damaged.
    """
    if backend == "decord" and packets.closed:
        frames = _read_with_decord(path, indices, packets.num_frames)
        if frames is not None:
            return frames
    return _read_with_pyav(path, indices, packets)


def _open(path: str) -> av.container.InputContainer:
    """The file as a container; tags that are not text do not matter here."""
    return av.open(path, metadata_errors="ignore")


def _video_stream(container: av.container.InputContainer, path: str) -> av.VideoStream:
    """The stream that a player would show.

    Raises:
        VideoReadError: If there is none, or nothing here decodes it.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
        raise VideoReadError(path, "no video stream")
    if stream.codec_context is None:
        raise VideoReadError(path, "no decoder for the video stream")
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = _DECODER_THREADS
    return stream


def _check_complete(path: str, stream: av.VideoStream, packets: list[_Packet]) -> None:
    """Raise if there is nothing to show or the end of the file is missing.

    Raises:
        VideoReadError: If no packet is shown, the last one is cut off, or the declared duration is not reached.
    """
    if not any(packet.is_shown for packet in packets):
        raise VideoReadError(path, "no frames")
    if packets[-1].is_cut_off:
        raise VideoReadError(path, f"truncated: packet {len(packets)} is cut off")
    # Matroska's tag; its packets never look cut off.
    declared = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    ends = [packet.time + packet.duration for packet in packets if packet.time is not None]
    if declared is None or not ends or stream.time_base is None:
        return
    hours, minutes, seconds = declared.groups()
    missing = int(hours) * 3600 + int(minutes) * 60 + float(seconds) - float(max(ends) * stream.time_base)
    if missing > _LONGEST_SILENT_TAIL:
        raise VideoReadError(path, f"truncated: the last {missing:.1f} s of video are missing")


def _read_with_decord(path: str, indices: Sequence[int], num_frames: int) -> NDArray[np.uint8] | None:
    """Frames read by decord, or None where decord does not manage (some widths, newer codecs, other frame counts)."""
    import decord  # noqa: PLC0415 - loads an FFmpeg of its own, which users of PyAV alone need not

    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) == num_frames:
            return reader.get_batch(indices).asnumpy()
        reason = f"it counts {len(reader)} frames, not {num_frames}"
    except decord.DECORDError as error:
        reason = str(error).splitlines()[0]
    logger.info("decord does not manage %s, PyAV reads it: %s", path, reason)
    return None


def _read_with_pyav(path: str, indices: Sequence[int], packets: PacketList) -> NDArray[np.uint8]:
    """Frames read by PyAV: from the key frames before them if possible, else by decoding from the start.

    Raises:
        VideoReadError: If a frame is not decoded.
    """
    wanted = sorted(set(indices))
    found = _decode_from_key_frames(path, wanted, packets) if packets.key_times else {}
    if len(found) < len(wanted):
        found = _decode_from_start(path, set(wanted))
    if len(found) < len(wanted):
        missing = min(set(wanted) - set(found))
        raise VideoReadError(path, f"frame {missing} of {packets.num_frames} cannot be decoded")
    return np.stack([found[index] for index in indices])  # (T, h, w, 3)


def _decode_from_key_frames(path: str, wanted: list[int], packets: PacketList) -> dict[int, NDArray[np.uint8]]:
    """Decode from the last key frame at or before each wanted frame; stops at the first that does not turn up there."""
    found: dict[int, NDArray[np.uint8]] = {}
    with _open(path) as container:
        stream = _video_stream(container, path)
        frames: Iterator[av.VideoFrame] = iter(())
        position = packets.times[0] - 1  # time of the last frame decoded
        for index in wanted:
            time = packets.times[index]
            key = packets.key_times[max(bisect_right(packets.key_times, time) - 1, 0)]
            if key > position:
                container.seek(key, stream=stream)
                frames = container.decode(stream)
            frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= time), None)
            if frame is None or frame.pts != time:
                break
            position = time
            found[index] = _rgb(frame, stream)
    return found


def _decode_from_start(path: str, wanted: set[int]) -> dict[int, NDArray[np.uint8]]:
    """Decode every frame up to the last one wanted; leaves out those that the file does not give."""
    found: dict[int, NDArray[np.uint8]] = {}
    with _open(path) as container:
        stream = _video_stream(container, path)
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                found[index] = _rgb(frame, stream)
            if len(found) == len(wanted):
                break
    return found


def _rgb(frame: av.VideoFrame, stream: av.VideoStream) -> NDArray[np.uint8]:
    """Upright pixels (h, w, 3); the frame's own colour matrix is honoured, as decord does."""
    pixels = frame.to_ndarray(format="rgb24", width=stream.width, height=stream.height, dst_colorspace="DEFAULT")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
