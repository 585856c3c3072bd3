"""``evidence``: how much longer a vision tower takes where methods ask for evidence."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarking.measuring import DTYPES, MIB, best_ms, device_name, peak_bytes, reset_peak
from benchmarking.reporting import add_output_options, report
from stgridpool.evidence import AttentionReceived, FrameVectors, Need, PoolHeadAttention, TowerKeys

LAYERS = 26  # that LLaVA runs
NEEDS: dict[str, tuple[Need, ...]] = {
    "features alone": (),
    "attention received": (AttentionReceived(),),
    "keys": (TowerKeys(),),
    "pooling head": (PoolHeadAttention(), FrameVectors("pool_head")),
}


def add_parser(commands: Any) -> None:
    """Add the command to the parsers `commands`."""
    parser = commands.add_parser(
        "evidence",
        help="time a vision tower with and without evidence",
        description="A SigLIP tower of the size of siglip-so400m-patch14-384 with random weights encodes random "
        "images. LLaVA runs 26 of its 27 layers; with fewer, evidence weighs more. All cases are timed in turn, round "
        "after round, and the best round of each counts; on the CPU in seconds of the processor.",
    )
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers that run (default: %(default)s)")
    parser.add_argument("--images", type=int, default=4, help="images at a time (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each case (default: %(default)s)")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    rows = benchmark_evidence(arguments)
    origin = {"data": "random images and weights, seed 0", "layers": arguments.layers, "images": arguments.images}
    report(arguments, rows, {**origin, "rows": rows}, partial(print_evidence, rows, arguments))


@torch.inference_mode()
def benchmark_evidence(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Time all cases, one row for each.

    `more_time` is the time beyond that of the features alone, as a fraction of it; `more_time_of_26_layers` the same
    fraction of what 26 layers take. `memory_bytes` is the peak of a pass beyond what was held before it.
    """
    device, dtype = torch.device(arguments.device), DTYPES[arguments.dtype]
    tower = _tower(arguments.layers, device, dtype)
    images = torch.randn(arguments.images, 3, tower.image_size, tower.image_size, device=device, dtype=dtype)
    calls: list[Callable[[], object]] = [partial(tower.with_evidence, images, needs) for needs in NEEDS.values()]
    times = best_ms(calls, arguments.rounds, device, time.process_time if device.type == "cpu" else time.perf_counter)
    rows: list[dict[str, object]] = []
    for name, call, ms in zip(NEEDS, calls, times, strict=True):
        before = reset_peak(device)
        call()
        peak = peak_bytes(device)
        rows.append(
            {
                "evidence": name,
                "device": device_name(device),
                "dtype": arguments.dtype,
                "ms": round(ms, 2),
                "more_time": round(ms / times[0] - 1, 4),
                "more_time_of_26_layers": round((ms / times[0] - 1) * arguments.layers / LAYERS, 4),
                "memory_bytes": None if before is None or peak is None else peak - before,
            }
        )
    return rows


def _tower(layers: int, device: torch.device, dtype: torch.dtype) -> Any:
    """Build a SigLIP tower with its pooling head."""
    from transformers import SiglipVisionConfig, SiglipVisionModel  # noqa: PLC0415 - loads for seconds

    from llava.model.known_towers import KNOWN_GEOMETRY  # noqa: PLC0415
    from llava.model.pool_head import PoolHead  # noqa: PLC0415
    from llava.model.tower import SiglipTower  # noqa: PLC0415

    geometry = {**KNOWN_GEOMETRY["google/siglip-so400m-patch14-384"], "num_hidden_layers": layers + 1}
    config = SiglipVisionConfig(**geometry)
    torch.manual_seed(0)
    with device:
        tower = SiglipTower("siglip", config).to(dtype).eval()
        end: Any = SiglipVisionModel(SiglipVisionConfig(**{**geometry, "num_hidden_layers": 1})).to(dtype).eval()
    parts: tuple[nn.Module, ...] = (end.encoder.layers[0], end.post_layernorm, end.head)
    tower.pool_head = PoolHead("random", *parts)
    return tower


def print_evidence(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    """Print the rows as a table."""
    table = Table(
        title=f"{arguments.images} images through {arguments.layers} layers of siglip-so400m-patch14-384's size, "
        f"random weights, {arguments.dtype}, {rows[0]['device']}, torch {torch.__version__}; best of "
        f"{arguments.rounds} rounds"
    )
    for column in ("evidence", "ms", "more time", f"more time of {LAYERS} layers", "memory in MiB"):
        table.add_column(column, justify="left" if column == "evidence" else "right")
    for row in rows:
        memory = row["memory_bytes"]
        table.add_row(
            str(row["evidence"]),
            f"{row['ms']:.0f}",
            f"{row['more_time']:+.1%}",
            f"{row['more_time_of_26_layers']:+.2%}",
            "unknown" if memory is None else f"{memory / MIB:.0f}",  # type: ignore[operator]
        )
    Console(width=120).print(table)
