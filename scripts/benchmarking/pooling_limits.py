"""Which methods the pooling benchmark leaves out on a grid, because of their time or memory on the one before."""

from __future__ import annotations

import argparse
import os

import torch

from benchmarking.measuring import DTYPES
from benchmarking.orders import growth
from benchmarking.pooling_rows import Row


def too_slow(before: list[Row], shape: tuple[int, int, int], dtype: str, arguments: argparse.Namespace) -> list[Row]:
    """Return a row for each method that would take too long on `shape` (T, H, W), or too much memory.

    Args:
        before: The last row of each method that was timed, on a smaller grid; time and memory grow from there as
            `growth` says.
        shape: The next one.
        dtype: Its name.
        arguments: The benchmark's options.
    """
    found: list[Row] = []
    width = arguments.width * DTYPES[dtype].itemsize
    memory = _memory(torch.device(arguments.device))
    for row in before:
        height, columns = map(int, str(row["grid"]).split("x"))
        time, space = growth(row["method"], shape[1] * shape[2] / (height * columns))
        extra = (row["extra_memory_share"] or 0) * arguments.frames * height * columns * width * space  # type: ignore[operator]
        seconds = row["ms"] / 1000 * time  # type: ignore[operator]
        reason = f"would take about {seconds:.0f} s" if seconds > arguments.most_seconds else None
        if extra > memory / 2:
            reason = f"would need about {extra / 2**30:.0f} GiB"
        if reason is not None:
            grid = f"{shape[1]}x{shape[2]}"
            found.append({"method": row["method"], "grid": grid, "dtype": dtype, "ms": None, "left_out": reason})
    return found


def _memory(device: torch.device) -> int:
    """Return the bytes of memory of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
