"""Long clips for comparing decoders, in seconds: two groups of pictures are encoded and repeated as they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, count, cycle, islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.stream import VideoStream

KEY_FRAME_EVERY = 250  # frames
PERIOD = 2 * KEY_FRAME_EVERY  # frames that differ; sampled frames must not lie this far apart
_CLOCK = 600  # ticks per second: 20 per frame at 30 frames a second
_SAME = "keyint=250:min-keyint=250:scenecut=0:bframes=3"


class Kind(NamedTuple):
    """One kind of clip."""

    codec: str
    options: dict[str, str]
    durations: tuple[int, ...]  # of the frames, in turn, in ticks


KINDS = {
    "h264": Kind("libx264", {"preset": "fast", "x264-params": _SAME}, (20,)),
    "hevc": Kind("libx265", {"preset": "fast", "x265-params": f"{_SAME}:open-gop=0:log-level=none"}, (20,)),
    "h264, variable rate": Kind("libx264", {"preset": "fast", "x264-params": _SAME}, (10, 10, 20, 40)),
}


def write_clip(path: Path, kind: Kind, width: int, height: int, seconds: int) -> None:
    """Write a clip of about `seconds`, with a key frame every `KEY_FRAME_EVERY` frames and B frames between."""
    with av.open(str(path), "w", options={"video_track_timescale": str(_CLOCK)}) as container:
        stream = container.add_stream(kind.codec, rate=_CLOCK, options=kind.options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        starts = list(islice(accumulate(cycle(kind.durations), initial=0), PERIOD + 1))
        packets = [packet for packet in _encode(stream, starts[:-1]) if packet.size]
        for shift in range(0, seconds * _CLOCK, starts[-1]):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + shift, packet.dts + shift
                copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
                container.mux(copy)


def _encode(stream: VideoStream, starts: list[int]) -> Iterator[av.Packet]:
    """Encode a window that moves over a texture; no two frames are alike."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 230, (stream.height // 16 + 200, stream.width // 16 + 200, 3), dtype=np.uint8)
    texture = blocks.repeat(16, axis=0).repeat(16, axis=1)
    texture += random.integers(0, 25, texture.shape, dtype=np.uint8)
    for index, start in zip(count(), starts, strict=False):
        window = texture[2 * index : 2 * index + stream.height, 3 * index : 3 * index + stream.width]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(window), format="rgb24")
        frame.pts = start
        yield from stream.encode(frame)
    yield from stream.encode(None)
