"""Barriers that can tell a slow rank from a stuck one.

The rank with the longest videos may need hours more than another. Every rank therefore reports its progress from time
to time, and a barrier times out only if a rank has not reported for a long time.
"""

import time
from datetime import timedelta

import torch
from torch import distributed

_LENGTH = 256  # bytes of a message: whether its rank has reached the barrier, then text, then zeros
_SECONDS_BETWEEN_REPORTS = 60.0


class RankProgress:
    """Exchanges progress reports between the ranks of a run, over its own process group.

    Every rank must create one `RankProgress`, and must call `barrier` as often as the others. Each may call `report` at
    any time.

    Args:
        rank: This rank.
        world_size: Number of ranks.
        timeout: Maximum time that `barrier` waits for a rank that reports nothing.
    """

    def __init__(self, rank: int, world_size: int, timeout: timedelta) -> None:
        self._others = [other for other in range(world_size) if other != rank]
        self._rank, self._timeout = rank, timeout
        self._group = new_cpu_group()
        self._reported = time.monotonic()
        self._sent: list[tuple[distributed.Work, torch.Tensor]] = []  # tensors must live until they have arrived

    def report(self, done: str) -> None:
        """Report progress to the other ranks, at most once a minute; returns without waiting for them."""
        if time.monotonic() - self._reported >= _SECONDS_BETWEEN_REPORTS:
            self._send(done, has_arrived=False)

    def barrier(self) -> None:
        """Wait until all ranks have reached this barrier.

        Raises:
            RuntimeError: If a rank ends, or reports nothing until the timeout; the message names the rank and its last
                report.
        """
        self._send("reached the barrier", has_arrived=True)
        for other in self._others:
            self._wait_for(other)
        for work, _ in self._sent:
            work.wait(self._timeout)  # returns as soon as the other rank has received all earlier messages
        self._sent.clear()

    def _send(self, text: str, has_arrived: bool) -> None:
        self._reported = time.monotonic()
        message = bytes([has_arrived]) + text.encode()[: _LENGTH - 1]
        data = torch.frombuffer(bytearray(message.ljust(_LENGTH, b"\0")), dtype=torch.uint8)
        for other in self._others:
            work = distributed.isend(data, dst=other, group=self._group)
            if work is not None:  # None only outside of the group
                self._sent.append((work, data))

    def _wait_for(self, other: int) -> None:
        last = "nothing"
        data = torch.empty(_LENGTH, dtype=torch.uint8)
        while True:
            try:
                work = distributed.irecv(data, src=other, group=self._group)
                if work is not None:  # None only outside of the group
                    work.wait(self._timeout)
            except RuntimeError as error:
                raise RuntimeError(
                    f"rank {self._rank} waited at a barrier for rank {other}, whose last report was: {last}. Rank "
                    f"{other} has ended, or has reported nothing for {self._timeout.total_seconds():g} s; if it is "
                    f"only slow, raise barrier_timeout_s. {error}"
                ) from error
            has_arrived, *text = data.tolist()
            if has_arrived:
                return
            last = bytes(text).rstrip(b"\0").decode(errors="replace")


def new_cpu_group() -> distributed.ProcessGroup:
    """Create a process group of all ranks that sends tensors in host memory; every rank must call this.

    Raises:
        RuntimeError: If this rank is not in the group.
    """
    group = distributed.new_group(backend="gloo")
    if isinstance(group, int):
        raise RuntimeError("a process group of all ranks must contain this rank: torch.distributed says otherwise")
    return group
