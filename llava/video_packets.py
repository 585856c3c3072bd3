"""The frames of a video file and their times, read from its packets without decoding them.

Both readers take the frames and their order from this list, so they return the same indices. Decoding verifies it: if
the decoder returns other frames, `llava.video_decoding` lists those instead.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np

from llava.completeness import check_complete, check_structure
from llava.shown_packets import is_shown
from llava.video_opening import VideoReadError, open_video

__all__ = ["KeyPacket", "PacketList", "VideoReadError", "list_packets", "open_video"]

_SEEKABLE_FORMATS = {"mov", "matroska"}  # their packets carry the times at which frames are shown
_INDEX_BYTES = 40  # for each frame of an MP4 file, its time included
_SMALLEST_MPEG4_FRAME = 24  # bytes; smaller packets say that nothing has changed, and give no frame


class KeyPacket(NamedTuple):
    """A packet from which decoding can start."""

    position: int  # among the stream's packets, in the order of storage
    tick: int  # when its frame is shown, in the stream's time base
    seek_tick: int  # target of a seek: the time by which the format lists its key frames


@dataclass(frozen=True)
class PacketList:
    """The frames of a video stream according to its packets, before anything is decoded.

    Attributes:
        times: Time of each frame, in seconds from the start of the file, ascending; at least one.
        duration: End of the last frame, in seconds from the start of the file.
        frame_rate: Average rate that the file declares, in frames per second; None if it declares none.
        ticks: Times in the stream's time base; empty if only decoding from the start can identify frames.
        positions: Position of each frame's packet in the order of storage; empty if `ticks` is.
        keys: Packets from which decoding can start, in the order of storage; empty if `ticks` is.
        ids: (pts, dts) of every packet in the order of storage; empty if `ticks` is.
    """

    times: list[float]
    duration: float
    frame_rate: float | None
    ticks: list[int]
    positions: list[int]
    keys: list[KeyPacket]
    ids: list[tuple[int | None, int | None]]

    @property
    def rate(self) -> float:
        """The rate that the file declares, or else the mean one, in frames per second."""
        return self.frame_rate or len(self.times) / max(self.duration, 1e-3)

    def key_of(self, index: int) -> int:
        """Find the key packet from which to decode frame `index`: the last one that is not shown after it."""
        number = bisect_right(self.keys, self.positions[index], key=lambda key: key.position) - 1
        while number > 0 and self.keys[number].tick > self.ticks[index]:
            number -= 1
        return max(number, 0)


@dataclass(frozen=True, slots=True)
class _Packet:
    """The facts of one packet, without its data."""

    tick: int | None  # when its frame is shown, in the stream's time base
    decoding_tick: int | None  # when it is decoded, ascending in the order of storage
    duration: int
    size: int
    is_key: bool
    is_shown: bool

    @property
    def any_tick(self) -> int | None:
        """The time at which its frame is shown, or else decoded."""
        return self.decoding_tick if self.tick is None else self.tick


@dataclass(frozen=True)
class _Facts:
    """What the file declares of its video stream."""

    formats: list[str]  # names of its container's format
    codec: str
    declared_rate: float | None  # frames per second, on average
    rate: float | None  # the same, or else a guess from the times of the packets
    start: float  # time at which the file starts, in seconds
    time_base: float  # s per tick; 0 if unknown
    is_paletted: bool  # only the first packet read carries the palette

    @classmethod
    def of(cls, container: av.container.InputContainer, stream: av.VideoStream) -> "_Facts":
        declared = float(stream.average_rate or 0) or None
        return cls(
            container.format.name.split(","),
            stream.codec_context.name,
            declared,
            declared or float(stream.guessed_rate or 0) or None,
            (container.start_time or 0) / av.time_base,
            float(stream.time_base or 0),
            stream.codec_context.pix_fmt == "pal8",
        )


def list_packets(path: str) -> PacketList:
    """Read the packets of a file, and list the frames of its default video stream.

    If the first frames depend on packets that were cut off, decoding to the first frame that can be shown finds those
    to leave out.

    Raises:
        VideoReadError: If there is no video stream, decoder, frame rate or frame, the file is truncated, or lists more
            frames than it can hold.
        av.FFmpegError: If the file is not a media file, or is damaged.
        MemoryError: If there is no memory for the list that the file holds of its frames.
    """
    check_structure(path)
    with open_video(path) as (container, stream):
        packets, ends = _read_packets(path, container, stream)
        check_complete(path, container, stream, [packet.size for packet in packets], ends)
        facts, num_declared = _Facts.of(container, stream), stream.frames
    if not packets and "mov" in facts.formats:
        _check_index(path, max(0, num_declared))
    packets = [packet for packet in packets if packet.size]
    shown = [position for position, packet in enumerate(packets) if packet.is_shown]
    if not shown:
        raise VideoReadError(path, "no frames")
    ordered = sorted((tick, position) for position in shown if (tick := packets[position].any_tick) is not None)
    if len(ordered) < len(shown) or not facts.time_base:
        return _without_times(path, len(shown), facts.rate)
    if _starts_in_doubt(packets):
        ordered = _without_undecodable(path, ordered)
    times = [tick * facts.time_base - facts.start for tick, _ in ordered]
    last = packets[ordered[-1][1]].duration * facts.time_base
    duration = times[-1] + _last_duration(times, last, facts.declared_rate)
    rate = facts.declared_rate
    if facts.formats[0] == "avi" and rate is not None:  # its rate counts places for frames, of which some are empty
        rate = min(rate, len(times) / (duration - times[0]))
    if not _is_seekable(facts, packets, ordered):
        return PacketList(times, duration, rate, [], [], [], [])
    keys = _key_packets(packets, by_decoding="mov" in facts.formats)
    ids = [(packet.tick, packet.decoding_tick) for packet in packets]
    ticks, positions = ([pair[part] for pair in ordered] for part in (0, 1))
    return PacketList(times, duration, rate, ticks, positions, keys, ids)


def _without_times(path: str, num_frames: int, rate: float | None) -> PacketList:
    """List frames of a stream that gives them no times, at even distances.

    Raises:
        VideoReadError: If the rate is unknown as well.
    """
    if rate is None:
        raise VideoReadError(path, "the video stream declares neither a frame rate nor times")
    return PacketList([index / rate for index in range(num_frames)], num_frames / rate, rate, [], [], [], [])


def _is_seekable(facts: _Facts, packets: Sequence[_Packet], ordered: Sequence[tuple[int, int]]) -> bool:
    """Tell whether the times of the packets identify the frames that decoding from any key packet returns."""
    return (
        not _SEEKABLE_FORMATS.isdisjoint(facts.formats)
        and not facts.is_paletted
        and len({tick for tick, _ in ordered}) == len(ordered)
        and all(packet.tick is not None for packet in packets)
        and not (facts.codec == "mpeg4" and any(packet.size < _SMALLEST_MPEG4_FRAME for packet in packets))
    )


def _read_packets(
    path: str, container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[list[_Packet], dict[int, float]]:
    """Read the packets of the stream, and the end of every stream of the file.

    Raises:
        VideoReadError: If the stream's last packet is cut off.
    """
    packets: list[_Packet] = []
    ends: dict[int, float] = {}
    codec, is_cut_off = stream.codec_context.name, False
    for one in container.demux():
        if one.pts is None and one.dts is None and not one.size:  # the end of a stream
            continue
        if one.pts is not None:
            end = float((one.pts + (one.duration or 0)) * one.time_base)
            ends[one.stream.index] = max(end, ends.get(one.stream.index, end))
        if one.stream.index != stream.index:
            continue
        is_cut_off = one.is_corrupt
        shown = bool(one.size) and not one.is_discard and is_shown(codec, one)
        packets.append(_Packet(one.pts, one.dts, one.duration or 0, one.size, one.is_keyframe, shown))
    if is_cut_off:
        raise VideoReadError(path, f"truncated: packet {len(packets)} is cut off")
    return packets, ends


def _check_index(path: str, num_frames: int) -> None:
    """Find out why FFmpeg finds no frames of those that a file lists: it says nothing if it has no memory for the list.

    Raises:
        VideoReadError: If the file lists more frames than it has bytes.
        MemoryError: If there is not as much memory as the list takes.
    """
    size = os.path.getsize(path)
    if num_frames > size:
        raise VideoReadError(path, f"damaged: it lists {num_frames} frames and has {size} bytes")
    np.empty((num_frames, _INDEX_BYTES), np.uint8)


def _key_packets(packets: Sequence[_Packet], by_decoding: bool) -> list[KeyPacket]:
    keys = []
    for position, packet in enumerate(packets):
        if (packet.is_key or not position) and packet.tick is not None:
            seek_tick = packet.decoding_tick if by_decoding else None
            keys.append(KeyPacket(position, packet.tick, packet.tick if seek_tick is None else seek_tick))
    return keys


def _starts_in_doubt(packets: Sequence[_Packet]) -> bool:
    """Tell whether the first frames may depend on packets that are not in the file."""
    first = packets[0].tick
    if not packets[0].is_key or first is None:
        return True
    following = [packet.tick for packet in packets[1:64] if packet.is_shown and packet.tick is not None]
    return min(following, default=first) < first


def _without_undecodable(path: str, ordered: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Drop the frames before the first one that the decoder returns."""
    with open_video(path) as (container, stream):
        for packet in container.demux(stream):
            try:
                frames = stream.decode(packet if packet.size else None)
            except MemoryError:
                raise
            except av.FFmpegError:  # what it depends on is missing
                continue
            for frame in frames:
                first = frame.dts if frame.pts is None else frame.pts
                return [(tick, position) for tick, position in ordered if first is None or tick >= first]
    raise VideoReadError(path, "no frame can be decoded")


def _last_duration(times: Sequence[float], declared: float, rate: float | None) -> float:
    """Compute how long the last frame is shown, in seconds; by default as long as the others on average."""
    if rate is not None:
        return declared or 1 / rate
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else declared
