"""``decode``: each decoder's time to read frames spread over a long clip, and whether the frames agree."""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarking.decode_clips import KEY_FRAME_EVERY, KINDS, write_clip
from benchmarking.reporting import add_output_options, report
from llava.frame_sampling import sample_frames
from llava.video import BACKENDS, read_video

_LIBRARY = re.compile(r"(lib(?:av|sw)\w+)-[0-9a-f]+(\.so\.\d+)")


class Reading(NamedTuple):
    """The result of one decoder."""

    indices: list[int]
    frames: NDArray[np.uint8]  # (T, h, w, 3)
    num_decoded: int | None  # None where the decoder does not say


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "decode",
        help="compare video decoders on a long clip",
        description="Seconds and CPU seconds are those of the fastest round, opening the file included; the file has "
        "been read before. Pixels are compared with those of decoding every frame from the first on, without seeking. "
        "torchcodec takes part where it is installed; if it finds no FFmpeg, it is given PyAV's.",
    )
    parser.add_argument("--frames", type=int, default=64, help="frames to read (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=600, help="length of the clips (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 720], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each decoder (default: %(default)s)")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    _show_ffmpeg_to_torchcodec()
    rows = [row for kind in arguments.kinds for row in benchmark_decoders(kind, arguments)]
    clips = {"seconds": arguments.seconds, "size": arguments.size, "key_frame_every": KEY_FRAME_EVERY}
    report(arguments, rows, {"clips": clips, "cpus": os.cpu_count(), "rows": rows}, partial(print_decoders, rows))


def benchmark_decoders(kind: str, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row per decoder, see `add_parser`."""
    readers: dict[str, Callable[[str, int], Reading]] = {name: partial(_read, name) for name in BACKENDS}
    if importlib.util.find_spec("torchcodec"):
        readers["torchcodec"] = _read_with_torchcodec
    best: dict[str, tuple[float, float]] = {}
    readings: dict[str, Reading] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, KINDS[kind], *arguments.size, arguments.seconds)
        expected = read_without_seeking(path, arguments.frames)
        for _ in range(arguments.rounds):
            for name, reader in readers.items():
                started, cpu_started = time.perf_counter(), time.process_time()
                readings[name] = reader(str(path), arguments.frames)
                taken = time.perf_counter() - started, time.process_time() - cpu_started
                best[name] = min(taken, best.get(name, taken))
    return [
        {
            "clip": kind,
            "decoder": name,
            "seconds": best[name][0],
            "cpu_seconds": best[name][1],
            "frames_decoded": reading.num_decoded,
            "equal_indices": reading.indices == expected.indices,
            "greatest_pixel_difference": int(np.abs(reading.frames.astype(np.int16) - expected.frames).max()),
        }
        for name, reading in readings.items()
    ]


def read_without_seeking(path: Path, num_frames: int) -> Reading:
    """Read frames by counting: decode everything from the first frame to the last one wanted."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        indices, _ = sample_frames(stream.frames, 1, num_frames, force_sample=True)
        frames = {}
        for index, frame in enumerate(container.decode(stream)):
            if index in indices:
                frames[index] = frame.to_ndarray(format="rgb24", dst_colorspace="DEFAULT")
    return Reading(indices, np.stack([frames[index] for index in indices]), len(frames))


def print_decoders(rows: list[dict[str, object]]) -> None:
    """Print the rows as a table."""
    columns = ("clip", "decoder", "seconds", "CPU seconds", "frames decoded", "equal indices", "pixel difference")
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console(width=120).print(table)


def _read(backend: str, path: str, num_frames: int) -> Reading:
    clip = read_video(path, num_frames, force_sample=True, backend=backend)
    return Reading(clip.indices, clip.frames, clip.num_decoded)


def _read_with_torchcodec(path: str, num_frames: int) -> Reading:
    from torchcodec.decoders import VideoDecoder  # noqa: PLC0415 - need not be installed

    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=4)
    indices, _ = sample_frames(len(decoder), 1, num_frames, force_sample=True)
    return Reading(indices, decoder.get_frames_at(indices).data.numpy(), None)


def _show_ffmpeg_to_torchcodec() -> None:
    """Restart this command with the libraries of PyAV's wheel in its path if no FFmpeg is installed.

    They have names of their own there, so they are linked by the names that torchcodec loads.
    """
    libraries = Path(av.__file__).parents[1] / "av.libs"
    path = os.environ.get("LD_LIBRARY_PATH", "")
    is_shown = str(libraries) in path.split(os.pathsep)
    if is_shown or importlib.util.find_spec("torchcodec") is None or ctypes.util.find_library("avcodec"):
        return
    links = Path(tempfile.mkdtemp(prefix="ffmpeg-of-pyav-"))
    for library in libraries.iterdir():
        if name := _LIBRARY.match(library.name):
            (links / "".join(name.groups())).symlink_to(library)
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([str(links), str(libraries), path])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
