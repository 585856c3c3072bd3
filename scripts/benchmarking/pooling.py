"""``pooling``: compressors on random tokens, on the CPU or a CUDA device, in float32 and bf16.

All methods are timed in turn, round after round, and the best round of each counts, so that the ratios hold on a noisy
machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarking.geometry import GEOMETRIES
from benchmarking.measuring import DTYPES, MIB, best_ms, device_name, peak_bytes, reset_peak
from benchmarking.reporting import add_output_options, report
from benchmarking.unfolding import UNFOLDED, Pooled, unfolded_nsp
from stgridpool import COMPRESSORS, Compressed, build_compressor, kernels
from stgridpool.contract.cases import invented

POOLING = ["none", "average", "bilinear", "max", "nsp", "ptg", "st_gridpool", "sttm"]
"""Methods that are timed by default."""


class Case(NamedTuple):
    """One method on one kind of tokens."""

    name: str
    compressor: Callable[[torch.Tensor], Compressed | Pooled]


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "pooling",
        help="time compressors on random tokens",
        description="ms is the time to decide and apply. Bytes moved are the input read once and the output written "
        "once; their rate is compared with that of copying the input. Extra memory is the peak beyond both. With nsp "
        "comes the same pooling by unfolding windows.",
    )
    parser.add_argument("--methods", nargs="+", choices=list(COMPRESSORS), default=POOLING, metavar="METHOD")
    parser.add_argument(
        "--all",
        dest="methods",
        action="store_const",
        const=list(COMPRESSORS),
        help="all methods: those that compare all pairs of tokens take minutes and gigabytes",
    )
    parser.add_argument("--frames", type=int, default=64, help="T (default: %(default)s)")
    parser.add_argument("--grid", type=int, nargs=2, default=[27, 27], metavar=("H", "W"), help="tokens per frame")
    parser.add_argument("--width", type=int, default=3584, help="D, channels of a token (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--triton-kernels", action="store_true", help="use the kernels that are off by default")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each method (default: %(default)s)")
    parser.add_argument(
        "--decoder-layer",
        choices=list(GEOMETRIES),
        help="also compare with one decoder layer of this size on as many tokens as there are before compression",
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    rows = benchmark_pooling(arguments)
    written = {"data": "random tokens, seed 0", "rows": rows}
    report(arguments, rows, written, partial(print_pooling, rows, arguments))


def benchmark_pooling(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row per method and dtype, see `add_parser` for the columns."""
    device = torch.device(arguments.device)
    if arguments.triton_kernels:
        kernels.switch_on(device)
    cases = [Case(name, _with_evidence(name, arguments, device)) for name in arguments.methods]
    if "nsp" in arguments.methods:
        cases.append(Case(UNFOLDED, unfolded_nsp))
    rows: list[dict[str, object]] = []
    for dtype in arguments.dtypes:
        torch.manual_seed(0)
        shape = (arguments.frames, *arguments.grid, arguments.width)
        tokens = torch.randn(shape, device=device, dtype=torch.float32).to(DTYPES[dtype])
        new = _benchmark_tokens(cases, tokens, dtype, arguments.rounds)
        if arguments.decoder_layer is not None:
            _add_decoder_layer_ratio(new, tokens, arguments.decoder_layer, arguments.rounds)
        rows += new
    return rows


def _with_evidence(
    name: str, arguments: argparse.Namespace, device: torch.device
) -> Callable[[torch.Tensor], Compressed]:
    """Build the method `name`, with random evidence of the sizes that a model gives."""
    compressor = build_compressor(name)
    height, row = arguments.grid
    found = invented(compressor, (arguments.frames, height, row), width=arguments.width)
    evidence = {need: value.to(device) for need, value in found.items()}
    return partial(compressor, evidence=evidence)


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
                "device": device_name(tokens.device),
                "dtype": dtype,
                "ms": round(ms, 3),
                "ratio_to_average": round(ms / (average_ms if case.name != "average" else ms), 3),
                "bytes_moved": moved,
                "copy_bandwidth_share": round((moved / ms) / (2 * size / copy_ms), 3),
                "extra_memory_share": None if extra is None else round(extra / size, 3),
            }
        )
    return rows


@torch.inference_mode()
def _add_decoder_layer_ratio(rows: list[dict[str, object]], tokens: torch.Tensor, size: str, rounds: int) -> None:
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


def extra_memory(call: Callable[[], Compressed | Pooled], tokens: torch.Tensor) -> int | None:
    """Peak bytes that `call` holds beyond its input `tokens` and its output; None where it cannot be read."""
    before = reset_peak(tokens.device)
    made = call().tokens
    peak = peak_bytes(tokens.device)
    if before is None or peak is None:
        return None
    return max(0, peak - before - (0 if _is_view(made, tokens) else made.numel() * made.element_size()))


def print_pooling(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    """Print the rows as a table."""
    height, width = arguments.grid
    table = Table(
        title=f"{arguments.frames} frames of {height}x{width} random tokens of width {arguments.width}, "
        f"{rows[0]['device']}, torch {torch.__version__}; best of {arguments.rounds} rounds"
    )
    columns = ["method", "dtype", "ms", "ratio to average", "MiB moved", "share of copy bandwidth", "extra memory"]
    if arguments.decoder_layer is not None:
        columns.append(f"ratio to a {arguments.decoder_layer} decoder layer")
    for column in columns:
        table.add_column(column, justify="left" if column in ("method", "dtype") else "right")
    for row in rows:
        extra, ratio = row["extra_memory_share"], row.get("decoder_layer_ratio")
        table.add_row(
            str(row["method"]),
            str(row["dtype"]),
            f"{row['ms']:.1f}",
            f"{row['ratio_to_average']:.2f}",
            f"{row['bytes_moved'] / MIB:.0f}",  # type: ignore[operator]
            f"{row['copy_bandwidth_share']:.0%}",
            "unknown" if extra is None else f"{extra:.0%} of the input",
            *(["does not fit" if ratio is None else f"{ratio:.3f}"] if "decoder_layer_ratio" in row else []),
        )
    Console(width=140).print(table)


def _is_view(output: torch.Tensor, tokens: torch.Tensor) -> bool:
    return output.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr()
