"""Measure what this project claims about speed.

``pooling`` times every compressor on random tokens, on the CPU or a CUDA device, in float32 and bf16. All methods are
timed in turn, round after round, and the best round of each counts, so that the ratios hold on a noisy machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from stgridpool import COMPRESSORS, Compressed, Compressor, build_compressor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MIB = 2**20


class Case(NamedTuple):
    """One method on one kind of tokens."""

    name: str
    compressor: Compressor


def best_ms(calls: list[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """The fastest of `rounds` runs of each call, in ms, all calls in turn after a warm-up, the device synchronised."""
    best = [float("inf")] * len(calls)
    for round_number in range(rounds + 1):
        for index, call in enumerate(calls):
            _synchronise(device)
            started = time.perf_counter()
            call()
            _synchronise(device)
            if round_number > 0:
                best[index] = min(best[index], (time.perf_counter() - started) * 1000)
    return best


def extra_memory(call: Callable[[], Compressed], tokens: torch.Tensor) -> int | None:
    """Peak bytes that `call` holds beyond its input `tokens` and its output; None where it cannot be read."""
    device = tokens.device
    _synchronise(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        output = call()
        peak = torch.cuda.max_memory_allocated(device)
    else:
        status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
        if not clear.exists():
            return None
        clear.write_text("5")  # sets the peak of resident memory back to its present size
        before = _status_bytes(status, "VmRSS")
        output = call()
        peak = _status_bytes(status, "VmHWM")
    made = output.tokens
    return max(0, peak - before - (0 if _is_view(made, tokens) else made.numel() * made.element_size()))


def benchmark_pooling(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row per method and dtype, see `main` for the columns."""
    device = torch.device(arguments.device)
    cases = [Case(name, build_compressor(name)) for name in arguments.methods]
    rows: list[dict[str, object]] = []
    for dtype in arguments.dtypes:
        torch.manual_seed(0)
        shape = (arguments.frames, *arguments.grid, arguments.width)
        tokens = torch.randn(shape, device=device, dtype=torch.float32).to(DTYPES[dtype])
        rows += _benchmark_tokens(cases, tokens, dtype, arguments.rounds)
    return rows


@torch.inference_mode()
def _benchmark_tokens(cases: list[Case], tokens: torch.Tensor, dtype: str, rounds: int) -> list[dict[str, object]]:
    size = tokens.numel() * tokens.element_size()
    target = torch.empty_like(tokens)
    calls: list[Callable[[], object]] = [partial(target.copy_, tokens), partial(build_compressor("average"), tokens)]
    calls += [partial(case.compressor, tokens) for case in cases]
    copy_ms, average_ms, *case_ms = best_ms(calls, rounds, tokens.device)
    calls.clear()
    del target
    rows: list[dict[str, object]] = []
    for case, ms in zip(cases, case_ms, strict=True):
        output = case.compressor(tokens).tokens
        moved = 0 if _is_view(output, tokens) else size + output.numel() * output.element_size()
        del output
        extra = extra_memory(partial(case.compressor, tokens), tokens)
        rows.append(
            {
                "method": case.name,
                "device": _device_name(tokens.device),
                "dtype": dtype,
                "ms": round(ms, 3),
                "ratio_to_average": round(ms / (average_ms if case.name != "average" else ms), 3),
                "bytes_moved": moved,
                "copy_bandwidth_share": round((moved / ms) / (2 * size / copy_ms), 3),
                "extra_memory_share": None if extra is None else round(extra / size, 3),
            }
        )
    return rows


def provenance() -> dict[str, object]:
    """Command, commit, versions and weights of a measurement."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    described = subprocess.run(git, capture_output=True, text=True, check=False)
    return {
        "command": f"python scripts/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}",
        "commit": described.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": platform.machine(),
        "data": "random tokens, seed 0",
    }


def print_pooling(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    """The rows as a table."""
    height, width = arguments.grid
    table = Table(
        title=f"{arguments.frames} frames of {height}x{width} random tokens of width {arguments.width}, "
        f"{rows[0]['device']}, torch {torch.__version__}; best of {arguments.rounds} rounds"
    )
    for column in ("method", "dtype", "ms", "ratio to average", "MiB moved", "share of copy bandwidth", "extra memory"):
        table.add_column(column, justify="left" if column in ("method", "dtype") else "right")
    for row in rows:
        extra = row["extra_memory_share"]
        table.add_row(
            str(row["method"]),
            str(row["dtype"]),
            f"{row['ms']:.1f}",
            f"{row['ratio_to_average']:.2f}",
            f"{row['bytes_moved'] / MIB:.0f}",  # type: ignore[operator]
            f"{row['copy_bandwidth_share']:.0%}",
            "unknown" if extra is None else f"{extra:.0%} of the input",
        )
    Console(width=140).print(table)


def _is_view(output: torch.Tensor, tokens: torch.Tensor) -> bool:
    return output.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _status_bytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def main() -> None:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pooling = commands.add_parser(
        "pooling",
        help="time every compressor on random tokens",
        description="ms is the time to decide and apply. Bytes moved are the input read once and the output written "
        "once; their rate is compared with that of copying the input. Extra memory is the peak beyond both.",
    )
    pooling.add_argument("--methods", nargs="+", choices=list(COMPRESSORS), default=list(COMPRESSORS))
    pooling.add_argument("--frames", type=int, default=64, help="T (default: %(default)s)")
    pooling.add_argument("--grid", type=int, nargs=2, default=[27, 27], metavar=("H", "W"), help="tokens per frame")
    pooling.add_argument("--width", type=int, default=3584, help="D, channels of a token (default: %(default)s)")
    pooling.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    pooling.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    pooling.add_argument("--rounds", type=int, default=7, help="timed runs of each method (default: %(default)s)")
    pooling.add_argument("--json", action="store_true", help="print the rows as a JSON list")
    pooling.add_argument("--output", type=Path, metavar="FILE", help="also write them there, with what made them")
    arguments = parser.parse_args()
    rows = benchmark_pooling(arguments)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({**provenance(), "rows": rows}, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print_pooling(rows, arguments)


if __name__ == "__main__":
    main()
