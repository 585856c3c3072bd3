"""Time and memory of calls, on the CPU or a CUDA device."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MIB = 2**20
_MOST_MAPPED, _TRIM_THRESHOLD = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's mallopt


def best_ms(
    calls: list[Callable[[], object]],
    rounds: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Time the fastest of `rounds` runs of each call, in ms; calls take turns after a warm-up, with synchronisation.

    `clock` counts seconds: of the wall, or of the processor, which other work on the machine changes less.
    """
    best = [float("inf")] * len(calls)
    for round_number in range(rounds + 1):
        for index, call in enumerate(calls):
            synchronise(device)
            started = clock()
            call()
            synchronise(device)
            if round_number > 0:
                best[index] = min(best[index], (clock() - started) * 1000)
    return best


def keep_freed_memory() -> None:
    """Have glibc keep memory that is freed, as a GPU's allocator does; without glibc nothing changes.

    Otherwise every output of more than 32 MiB is fresh memory, and a call's time is mostly that of page faults: to copy
    all tokens takes three times as long as to average them.
    """
    if sys.platform == "linux" and (glibc := ctypes.util.find_library("c")):
        library = ctypes.CDLL(glibc)
        if hasattr(library, "mallopt"):
            library.mallopt(_MOST_MAPPED, 0)
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Give memory that `keep_freed_memory` kept back, so that peaks can be measured."""
    if sys.platform == "linux" and (glibc := ctypes.util.find_library("c")):
        library = ctypes.CDLL(glibc)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def matmul_flops_per_second(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Measure the rate at which the device multiplies large square matrices, the best of several runs.

    On a CPU they are of 512 rows: those without bfloat16 instructions take seconds for 1024.
    """
    side, rounds = (8192, 10) if device.type == "cuda" else (512, 4)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode():
        (best,) = best_ms([lambda: left @ right], rounds, device, clock)
    return 2 * side**3 / (best / 1000)


def reset_peak(device: torch.device) -> int | None:
    """Restart the peak that `peak_bytes` returns; return the bytes in use now, or None if it cannot be read."""
    synchronise(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    release_freed_memory()
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return None
    clear.write_text("5")  # sets the peak of resident memory back to its present size
    return _status_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int | None:
    """Return the peak memory since `reset_peak`, in bytes: on the GPU, or resident in the process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status_bytes("VmHWM") if Path("/proc/self/status").exists() else None


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """Name the device, for a table."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
