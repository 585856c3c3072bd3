"""Time and memory of calls, on the CPU or a CUDA device."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MIB = 2**20

_Result = TypeVar("_Result")


def best_ms(calls: list[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """The fastest of `rounds` runs of each call, in ms, all calls in turn after a warm-up, the device synchronised."""
    best = [float("inf")] * len(calls)
    for round_number in range(rounds + 1):
        for index, call in enumerate(calls):
            synchronise(device)
            started = time.perf_counter()
            call()
            synchronise(device)
            if round_number > 0:
                best[index] = min(best[index], (time.perf_counter() - started) * 1000)
    return best


def peak_memory(call: Callable[[], _Result], device: torch.device) -> tuple[_Result, int] | None:
    """What `call` returns, and the bytes by which memory grew at most while it ran; None where it cannot be read.

    On the CPU it is the resident memory of the process.
    """
    synchronise(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        return result, torch.cuda.max_memory_allocated(device) - before
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return None
    clear.write_text("5")  # sets the peak of resident memory back to its present size
    before = _status_bytes(status, "VmRSS")
    result = call()
    return result, _status_bytes(status, "VmHWM") - before


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The device, for a table."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _status_bytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
