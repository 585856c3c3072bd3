"""Clips to be decoded: H.264 with a moving texture, so that the codec has something to do."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

KEY_FRAME_EVERY = 250  # frames; x264's default


@dataclass(frozen=True)
class ClipSize:
    """Geometry of a clip."""

    width: int  # in pixels
    height: int
    seconds: int
    rate: int = 30  # frames per second


def write_clips(folder: Path, size: ClipSize, count: int) -> list[Path]:
    """Write clips that differ in their texture, several at a time."""
    paths = [folder / f"clip_{index}.mp4" for index in range(count)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for written in [threads.submit(_write_clip, path, size, index) for index, path in enumerate(paths)]:
            written.result()
    return paths


def _write_clip(path: Path, size: ClipSize, seed: int) -> None:
    """Write a clip of a window that moves over a texture, which depends on the seed."""
    texture = _texture(size, np.random.default_rng(seed))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=size.rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        stream.gop_size = KEY_FRAME_EVERY
        for index in range(size.seconds * size.rate):
            left, top = (_to_and_fro(index * speed, side) for speed, side in ((3, size.width), (2, size.height)))
            window = np.ascontiguousarray(texture[top : top + size.height, left : left + size.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode())


def _texture(size: ClipSize, random: np.random.Generator) -> np.ndarray:
    """(2 height, 2 width, 3) uint8: blocks of random colour with a little noise on them."""
    blocks = random.integers(0, 230, (size.height // 8, size.width // 8, 3), dtype=np.uint8)
    large = blocks.repeat(16, axis=0).repeat(16, axis=1)
    return large + random.integers(0, 25, large.shape, dtype=np.uint8)


def _to_and_fro(position: int, side: int) -> int:
    """Return a point that moves back and forth between 0 and half a side."""
    half = side // 2
    return half - abs(position % (2 * half) - half)
