"""``pooling``: compressors on random tokens, on the CPU or a CUDA device, in float32 and bf16.

All methods are timed in turn, round after round, and the best round of each counts, so that the ratios hold on a noisy
machine. Methods that take more than two seconds are called once.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarking.geometry import GEOMETRIES
from benchmarking.measuring import DTYPES, MIB, best_ms, keep_freed_memory, matmul_flops_per_second
from benchmarking.pooling_limits import too_slow
from benchmarking.pooling_rows import Case, Row, Timing, time_methods
from benchmarking.reporting import add_output_options, report
from benchmarking.unfolding import UNFOLDED, unfolded_nsp
from stgridpool import COMPRESSORS, Compressed, build_compressor, kernels
from stgridpool.contract.cases import invented

POOLING = ["none", "average", "bilinear", "max", "nsp", "ptg", "st_gridpool", "sttm"]
"""Methods that are timed by default."""


GRIDS = {False: [[27, 27]], True: [[14, 14], [27, 27]]}
"""Tokens per frame by default, without and with ``--all``."""
LAYER = "7B"
"""The model whose decoder layer all methods are compared with."""


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "pooling",
        help="time compressors on random tokens",
        description="ms is the time to decide and apply. Bytes moved are the input read once and the output written "
        "once; their rate is compared with that of copying the input. Extra memory is the peak beyond both. Freed "
        "memory is reused, on a CPU as on a GPU, so that page faults take no time. Order says how the work grows: with "
        "T frames of R tokens, N = T R tokens of width D, C tokens kept of a frame, and keys of width d. With nsp "
        "comes the same pooling by unfolding windows.",
    )
    parser.add_argument("--methods", nargs="+", choices=list(COMPRESSORS), default=POOLING, metavar="METHOD")
    parser.add_argument(
        "--all",
        dest="methods",
        action="store_const",
        const=list(COMPRESSORS),
        help="all methods, with 14x14 and 27x27 tokens per frame",
    )
    parser.add_argument("--frames", type=int, default=64, help="T (default: %(default)s)")
    parser.add_argument(
        "--grid", type=int, nargs=2, action="append", metavar=("H", "W"), help="tokens per frame; may be repeated"
    )
    parser.add_argument("--width", type=int, default=3584, help="D, channels of a token (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--triton-kernels", action="store_true", help="use the kernels that are off by default")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each method (default: %(default)s)")
    parser.add_argument(
        "--decoder-layer",
        choices=list(GEOMETRIES),
        help="run one decoder layer of this size on as many tokens as there are before compression, for comparison, "
        "instead of judging that of a 7B model by its number of operations and the speed of a matrix product",
    )
    parser.add_argument(
        "--most-seconds",
        type=float,
        default=60,
        help="leave methods out that would take longer on the next grid, or need more than half of the memory, judged "
        "by the grid before and the order of their work (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="threads on the CPU")
    parser.add_argument(
        "--processor-time", action="store_true", help="count processor time, which other work changes less"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    rows = benchmark_pooling(arguments)
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    written = {"data": "random tokens, seed 0", "load": load, "rows": rows}
    report(arguments, rows, written, partial(print_pooling, rows, arguments))


def benchmark_pooling(arguments: argparse.Namespace) -> list[Row]:
    """One row per grid, method and dtype, see `add_parser` for the columns."""
    device = torch.device(arguments.device)
    if arguments.triton_kernels:
        kernels.switch_on(device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if device.type == "cpu":
        keep_freed_memory()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    timing, rows = Timing(arguments.rounds, clock), list[Row]()
    for dtype in arguments.dtypes:
        before: list[Row] = []
        for grid in arguments.grid or GRIDS[arguments.methods == list(COMPRESSORS)]:
            shape = (arguments.frames, *grid)
            left_out = {row["method"]: row for row in too_slow(before, shape, dtype, arguments)}
            cases = [
                Case(n, _with_evidence(n, shape, arguments.width, device))
                for n in arguments.methods
                if n not in left_out
            ]
            if "nsp" in arguments.methods and UNFOLDED not in left_out:
                cases.append(Case(UNFOLDED, unfolded_nsp))
            torch.manual_seed(0)
            tokens = torch.randn((*shape, arguments.width), device=device, dtype=torch.float32).to(DTYPES[dtype])
            new = time_methods(cases, tokens, dtype, timing)
            if arguments.decoder_layer is not None:
                _add_decoder_layer_ratio(new, tokens, arguments.decoder_layer, arguments.rounds)
            else:
                _add_share_of_layer(new, tokens, timing.clock)
            rows += [*new, *left_out.values()]
            before = [*(row for row in before if row["method"] in left_out), *new]
    return rows


def _with_evidence(
    name: str, shape: tuple[int, int, int], width: int, device: torch.device
) -> Callable[[torch.Tensor], Compressed]:
    """Build the method `name`, with random evidence of the sizes that a model gives."""
    compressor = build_compressor(name)
    found = invented(compressor, shape, width=width)
    evidence = {need: value.to(device) for need, value in found.items()}
    return partial(compressor, evidence=evidence)


def _add_share_of_layer(rows: list[Row], tokens: torch.Tensor, clock: Callable[[], float]) -> None:
    """Divide the time of each row by that of a decoder layer of `LAYER`, from its operations and a product's speed."""
    geometry, count = GEOMETRIES[LAYER], tokens[..., 0].numel()
    flops = geometry.prefill_flops(count) / geometry.layers
    layer_ms = 1000 * flops / matmul_flops_per_second(tokens.device, tokens.dtype, clock)
    for row in rows:
        row["decoder_layer_ms_by_operations"] = round(layer_ms, 1)
        row["decoder_layer_ratio"] = round(row["ms"] / layer_ms, 5)  # type: ignore[operator]


@torch.inference_mode()
def _add_decoder_layer_ratio(rows: list[Row], tokens: torch.Tensor, size: str, rounds: int) -> None:
    """Divide the time of each row by that of a decoder layer of `size` on as many tokens; None if that does not fit.

    In float32 torch has no attention for grouped heads on a GPU that does without the whole matrix of scores.
    """
    from benchmarking.decoder_layer import decoder_layer_call  # noqa: PLC0415 - transformers loads for seconds

    call = decoder_layer_call(GEOMETRIES[size], tokens[..., 0].numel(), tokens.dtype, tokens.device)
    for row in rows:
        row["decoder_layer_ratio"] = None
    with suppress(torch.OutOfMemoryError):
        (layer_ms,) = best_ms([call], rounds, tokens.device)
        for row in rows:
            row["decoder_layer_ratio"] = round(row["ms"] / layer_ms, 3)  # type: ignore[operator]


def print_pooling(rows: list[Row], arguments: argparse.Namespace) -> None:
    """Print the rows as one table per grid."""
    console = Console(width=150)
    for grid in dict.fromkeys(row["grid"] for row in rows):
        timed = [row for row in rows if row["grid"] == grid and "left_out" not in row]
        if timed:
            console.print(_table(timed, arguments))
        for row in rows:
            if row["grid"] == grid and "left_out" in row:
                console.print(f"{row['method']} ({row['dtype']}): left out: it {row['left_out']}")


def _table(rows: list[Row], arguments: argparse.Namespace) -> Table:
    table = Table(
        title=f"{arguments.frames} frames of {rows[0]['grid']} random tokens of width {arguments.width}, "
        f"{rows[0]['device']}, torch {torch.__version__}; best of {arguments.rounds} rounds"
    )
    columns = [
        "method",
        "order",
        "dtype",
        "ms",
        "ratio to average",
        "reads",
        "MiB moved",
        "share of copy bandwidth",
        "extra memory",
    ]
    if any("decoder_layer_ratio" in row for row in rows):
        columns.append(f"ratio to a {arguments.decoder_layer or LAYER} decoder layer")
    for column in columns:
        table.add_column(column, justify="left" if column in ("method", "order", "dtype") else "right")
    for row in rows:
        extra, ratio = row["extra_memory_share"], row.get("decoder_layer_ratio")
        table.add_row(
            str(row["method"]),
            str(row["order"] or ""),
            str(row["dtype"]),
            f"{row['ms']:.1f}",
            f"{row['ratio_to_average']:.2f}",
            "" if row["reads"] is None else str(row["reads"]),
            f"{row['bytes_moved'] / MIB:.0f}",  # type: ignore[operator]
            f"{row['copy_bandwidth_share']:.0%}",
            "unknown" if extra is None else f"{extra:.0%} of the input",
            *(["does not fit" if ratio is None else f"{ratio:.3f}"] if "decoder_layer_ratio" in row else []),
        )
    return table
