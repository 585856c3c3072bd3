"""``memory`` and ``short``: what reading videos in other processes costs, in memory and in seconds."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarking.reporting import add_output_options, report
from llava.image_processing import VisionImageProcessor
from llava.video import read_video
from llava.video_process import VideoReader, read_video_apart
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.videos.prefetch import VideoLoader

SIDE = 384  # pixels of the square that the vision towers of LLaVA-Video and LLaVA-OneVision take
_TIMEOUT_S = 600.0
_SECONDS_BETWEEN_SAMPLES = 0.01
_MB = 1e6


def add_parsers(commands: Any) -> None:
    """Add both commands to the parsers `commands`."""
    memory = commands.add_parser(
        "memory",
        help="peak memory of loading large clips",
        description="Loads H.264 clips as an evaluation does, two ahead by two threads, and drops each. Memory is the "
        "sum of the proportional set sizes of this process and its reading processes, sampled every 10 ms, beyond what "
        "this process takes before the first clip; Linux only.",
    )
    memory.add_argument("--clips", type=int, default=10, help="(default: %(default)s)")
    memory.add_argument("--frames", type=int, default=64, help="of each clip, all taken (default: %(default)s)")
    memory.add_argument("--size", type=int, nargs=2, default=[3840, 2160], metavar=("WIDTH", "HEIGHT"))
    memory.set_defaults(run=run_memory)
    short = commands.add_parser(
        "short",
        help="seconds for short clips, with a process for each and with processes that are used again",
        description="Seconds and CPU seconds, children included, of the fastest round; all ways in turn. 'here' reads "
        "in this process, without any isolation; 'a process for each' is what version 0.1 did.",
    )
    short.add_argument("--clips", type=int, default=24, help="(default: %(default)s)")
    short.add_argument("--frames", type=int, default=16, help="of each clip, all taken (default: %(default)s)")
    short.add_argument("--size", type=int, nargs=2, default=[640, 360], metavar=("WIDTH", "HEIGHT"))
    short.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    short.set_defaults(run=run_short)
    for parser in (memory, short):
        add_output_options(parser)


def run_memory(arguments: argparse.Namespace) -> None:
    """Measure memory and report."""
    with _clips(arguments) as paths:
        row = measure_memory(paths, arguments.frames)
    frame_bytes = arguments.size[0] * arguments.size[1] * 3 * arguments.frames
    row["frames_of_a_clip_before_resizing_mb"] = frame_bytes / _MB
    row["frames_of_a_clip_after_resizing_mb"] = SIDE * SIDE * 3 * arguments.frames / _MB
    report(arguments, row, {**_conditions(arguments), **row}, partial(_print, [row]))


def measure_memory(paths: Sequence[Path], num_frames: int) -> dict[str, float]:
    """Peak memory in MB (10^6 bytes) beyond the start: of all processes together, and of this one alone."""
    settings = LlavaArguments(
        pretrained="none", max_frames_num=num_frames, force_sample=True, decode_timeout_s=_TIMEOUT_S
    )
    loader = VideoLoader(VisionImageProcessor(SIDE), settings, torch.float32, pin=False)
    start = _proportional_bytes(os.getpid())
    started = time.perf_counter()
    with _peaks() as peaks:
        loader.expect(paths)
        for path in paths:
            loader.get(path)
    seconds = time.perf_counter() - started
    loader.close()
    together, alone = (max(peaks) for peaks in zip(*peaks, strict=True))
    return {
        "peak_mb_together": (together - start) / _MB,
        "peak_mb_of_this_process": (alone - start) / _MB,
        "seconds": seconds,
    }


def run_short(arguments: argparse.Namespace) -> None:
    """Measure seconds and report."""
    with _clips(arguments) as paths:
        rows = measure_seconds(paths, arguments.frames, arguments.rounds)
    report(arguments, rows, {**_conditions(arguments), "rows": rows}, partial(_print, rows))


def measure_seconds(paths: Sequence[Path], num_frames: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each way of reading, see `add_parsers`."""
    options = {"max_frames_num": num_frames, "force_sample": True}
    resizing = VisionImageProcessor(SIDE).resizing

    def used_again() -> None:
        reader = VideoReader(_TIMEOUT_S, resizing=resizing)
        for path in paths:
            reader.read(path, **options)
        reader.close()

    ways: dict[str, Callable[[], None]] = {
        "here": lambda: _each(paths, lambda path: read_video(path, resizing=resizing, **options)),
        "a process for each": lambda: _each(
            paths, lambda path: read_video_apart(path, _TIMEOUT_S, resizing=resizing, **options)
        ),
        "processes used again": used_again,
    }
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, read in ways.items():
            started, cpu_started = time.perf_counter(), _cpu_seconds()
            read()
            taken = time.perf_counter() - started, _cpu_seconds() - cpu_started
            best[name] = tuple(map(min, taken, best.get(name, taken)))
    return [{"way": name, "seconds": taken, "cpu_seconds": cpu} for name, (taken, cpu) in best.items()]


def _each(paths: Sequence[Path], read: Callable[[Path], object]) -> None:
    for path in paths:
        read(path)


def _cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


@contextmanager
def _peaks() -> Iterator[list[tuple[int, int]]]:
    """Memory while the block runs, in bytes: of this process with its children, and of this process alone."""
    samples: list[tuple[int, int]] = []
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_SAMPLES):
            own = _proportional_bytes(os.getpid())
            samples.append((own + sum(map(_proportional_bytes, _children())), own))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(child) for task in tasks for child in _text(task).split()]


def _proportional_bytes(process: int) -> int:
    """Memory of a process, what it shares divided by those that share it; 0 if it has ended."""
    lines = _text(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def _clips(arguments: argparse.Namespace) -> Iterator[list[Path]]:
    """Copy one clip the requested number of times, into a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.mp4" for number in range(arguments.clips)]
        _write_clip(paths[0], *arguments.size, arguments.frames)
        for path in paths[1:]:
            shutil.copy(paths[0], path)
        yield paths


def _write_clip(path: Path, width: int, height: int, num_frames: int) -> None:
    """Write an H.264 clip of a texture that moves, 8 frames a second."""
    texture = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(texture, 3 * index, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    clips = {"clips": arguments.clips, "frames": arguments.frames, "size": arguments.size, "codec": "h264"}
    return {"clips": clips, "cpus": os.cpu_count(), "load_average_of_one_minute": os.getloadavg()[0]}


def _print(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(*(name.replace("_", " ") for name in rows[0]))
    for row in rows:
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console(width=120).print(table)
