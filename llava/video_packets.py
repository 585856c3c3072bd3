"""What a video file holds, told by its packets, without decoding one of them.

The list of packets is the one source of the number of frames and of their order, so all readers answer the same
indices.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

import av

from llava.video_opening import VideoReadError, open_video

_SEEKABLE_FORMATS = {"mov", "mp4", "matroska", "webm"}  # their packets carry the times at which frames are shown
_LONGEST_SILENT_TAIL = 1.0  # s by which the last frame of an intact file may end before the declared duration


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

    def key_time(self, index: int) -> int:
        """Time of the key frame from which frame `index` is decoded: the last one that is not shown after it."""
        return self.key_times[max(bisect_right(self.key_times, self.times[index]) - 1, 0)]


@dataclass(frozen=True, slots=True)
class _Packet:
    """The facts of one packet, without its data."""

    time: int | None  # when its frame is shown, in the stream's time base
    decoding_time: int | None  # when it is decoded, ascending in the order of storage
    duration: int
    is_key: bool
    is_shown: bool
    is_cut_off: bool


def list_packets(path: str) -> PacketList:
    """Read the packets of the best video stream, without decoding and without keeping their data.

    Raises:
        VideoReadError: If the file is no video, there is no decoder, frame rate or frame, or the file is cut off.
        av.FFmpegError: If the file is no media file, or damaged.
    """
    with open_video(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        if rate <= 0:
            raise VideoReadError(path, "the video stream declares no frame rate")
        packets = [
            _Packet(one.pts, one.dts, one.duration or 0, one.is_keyframe, not one.is_discard, one.is_corrupt)
            for one in container.demux(stream)
            if one.size
        ]
        _check_complete(path, stream, packets)
        formats = container.format.name.split(",")
    num_frames = sum(packet.is_shown for packet in packets)
    times = [packet.time for packet in packets if packet.is_shown and packet.time is not None]
    if num_frames < len(packets) or len(set(times)) < len(packets) or _SEEKABLE_FORMATS.isdisjoint(formats):
        return PacketList(num_frames, rate, [], [], closed=False)
    ordered = sorted(times)
    # Before each packet, the last time shown by those stored earlier.
    latest = [ordered[0] - 1, *accumulate(times, max)]
    keys = [position for position, packet in enumerate(packets) if packet.is_key]
    closed = 0 in keys and all(latest[key] < times[key] == ordered[key] for key in keys)
    return PacketList(num_frames, rate, ordered, sorted(times[key] for key in keys), closed)


def _check_complete(path: str, stream: av.VideoStream, packets: list[_Packet]) -> None:
    """Raise if there is nothing to show or the end of the file is missing.

    Raises:
        VideoReadError: If no packet is shown, the last one is cut off, or declared frames or times are missing.
    """
    if not any(packet.is_shown for packet in packets):
        raise VideoReadError(path, "no frames")
    if packets[-1].is_cut_off:
        raise VideoReadError(path, f"truncated: packet {len(packets)} is cut off")
    if stream.frames > len(packets) and _ends_early(stream, packets):
        raise VideoReadError(path, f"truncated: {stream.frames - len(packets)} of {stream.frames} frames are missing")
    # Matroska's tag; its packets never look cut off.
    declared = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    ends = [packet.time + packet.duration for packet in packets if packet.time is not None]
    if declared is None or not ends or stream.time_base is None:
        return
    hours, minutes, seconds = declared.groups()
    missing = int(hours) * 3600 + int(minutes) * 60 + float(seconds) - float(max(ends) * stream.time_base)
    if missing > _LONGEST_SILENT_TAIL:
        raise VideoReadError(path, f"truncated: the last {missing:.1f} s of video are missing")


def _ends_early(stream: av.VideoStream, packets: list[_Packet]) -> bool:
    """Whether the packets do not fill the declared duration.

    An edit list may leave frames out, but shortens the duration too; and a wrong count alone does no harm.
    """
    first, last = packets[0], packets[-1]
    if first.decoding_time is None or last.decoding_time is None or stream.duration is None:
        return False
    missing = stream.duration - (last.decoding_time + last.duration - first.decoding_time)
    return missing >= max(last.duration / 2, 1)  # half a frame may be due to rounding
