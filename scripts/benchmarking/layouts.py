"""``layouts``: many clips of different lengths against as many of one length.

Plans follow from sizes, so what does not depend on the length of a clip should be made once. Every run begins with
nothing made, as a new process does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarking.measuring import device_name, synchronise
from benchmarking.reporting import add_output_options, report
from stgridpool import COMPRESSORS, Compressor, build_compressor
from stgridpool.frames import layout, mosaics, patterns

METHODS = [name for name, method in COMPRESSORS.items() if build_compressor(name).planned_shape((8, 8, 8)) is not None]


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "layouts",
        help="time clips of many lengths against clips of one length",
        description="Seconds to decide and apply for clips whose lengths are drawn from --frames, and for as many "
        "clips of their mean length. Tokens are random and narrow, so that deciding takes most of the time.",
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--clips", type=int, default=1000, help="clips of each kind (default: %(default)s)")
    parser.add_argument("--frames", type=int, nargs=2, default=[5, 64], metavar=("MIN", "MAX"), help="frames of a clip")
    parser.add_argument("--grid", type=int, nargs=2, default=[27, 27], metavar=("H", "W"), help="tokens per frame")
    parser.add_argument("--width", type=int, default=8, help="D, channels of a token (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each kind (default: %(default)s)")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    rows = benchmark_layouts(arguments)
    written = {"data": "random tokens and lengths, seed 0", "rows": rows}
    report(arguments, rows, written, partial(print_layouts, rows, arguments))


@torch.inference_mode()
def benchmark_layouts(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row per method: seconds for both kinds of clips, and their ratio."""
    shortest, longest = arguments.frames
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(shortest, longest + 1, (arguments.clips,), generator=generator).tolist()
    same = [round(sum(lengths) / len(lengths))] * len(lengths)
    clip = torch.randn(longest, *arguments.grid, arguments.width, generator=generator).to(arguments.device)
    rows: list[dict[str, object]] = []
    for name in arguments.methods:
        calls = [partial(_compress_all, build_compressor(name), clip, kind) for kind in (lengths, same)]
        many, one = _best_seconds(calls, arguments.rounds, clip.device)
        rows.append(
            {
                "method": name,
                "device": device_name(clip.device),
                "seconds_many_lengths": round(many, 4),
                "seconds_one_length": round(one, 4),
                "ratio": round(many / one, 3),
            }
        )
    return rows


def _compress_all(compressor: Compressor, clip: torch.Tensor, lengths: Sequence[int]) -> None:
    for length in lengths:
        compressor(clip[:length])


def _best_seconds(calls: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """Time the fastest of `rounds` runs of each call, in s; calls take turns, each from empty caches."""
    best = [float("inf")] * len(calls)
    calls[0]()  # whatever torch sets up
    for _ in range(rounds):
        for index, call in enumerate(calls):
            _forget()
            synchronise(device)
            started = time.perf_counter()
            call()
            synchronise(device)
            best[index] = min(best[index], time.perf_counter() - started)
    return best


def _forget() -> None:
    """Drop every pattern and layout that was made."""
    for module in (layout, mosaics, patterns):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def print_layouts(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    """Print the rows as a table."""
    height, width = arguments.grid
    shortest, longest = arguments.frames
    table = Table(
        title=f"{arguments.clips} clips of {shortest} to {longest} frames of {height}x{width} random tokens of width "
        f"{arguments.width}, {rows[0]['device']}, torch {torch.__version__}; best of {arguments.rounds} rounds"
    )
    for column in ("method", "s, many lengths", "s, one length", "ratio"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        seconds = [f"{row[key]:.2f}" for key in ("seconds_many_lengths", "seconds_one_length", "ratio")]
        table.add_row(str(row["method"]), *seconds)
    Console(width=140).print(table)
