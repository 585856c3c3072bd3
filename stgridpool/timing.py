"""StageTimer: how long each named stage of the work took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageTimer:
    """Sums of the seconds spent in each stage of a run.

    On a CUDA device, events in the current stream mark the beginning and end of a stage, so timing never waits for the
    device; `seconds` waits for the last event. On other devices the wall clock is read. If a model is spread over
    several devices, the work of another device counts towards the stage that next waits for it; the sum of all stages
    is right.

    Args:
        device: The device that does the work.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block towards `name`, even if it ends in an exception."""
        if self._device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            begin.record(stream)
            try:
                yield
            finally:
                end.record(stream)
                self._events.append((name, begin, end))
            return
        with self.on_host(name):
            yield

    @contextmanager
    def on_host(self, name: str) -> Iterator[None]:
        """Count wall-clock time towards `name`, for work on the CPU, which the events of a GPU's stream do not see."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count `seconds`, measured elsewhere, towards `name`."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds by stage, in the order in which the stages first ended."""
        for name, begin, end in self._events:
            end.synchronize()
            self.add(name, begin.elapsed_time(end) / 1000)
        self._events.clear()
        return dict(self._seconds)
