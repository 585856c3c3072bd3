"""Barriers that tell a rank which still works from one that is stuck.

The rank with the longest videos may answer for hours longer than another. So every rank tells the others now and then
what it has done, and whoever waits gives up only on a rank that has said nothing for long.
"""

import time
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

_LENGTH = 256  # bytes of a message: whether its rank has come to the barrier, then text, then zeros
_SECONDS_BETWEEN_REPORTS = 60.0


class RankProgress:
    """Carries reports between the ranks of a run, over a process group of its own.

    Every rank must make one, and must then call `meet` as often as the others; `report` is free.

    Args:
        rank: Number of this rank.
        world_size: Number of ranks.
        timeout: How long `meet` waits for a rank that reports nothing.
    """

    def __init__(self, rank: int, world_size: int, timeout: timedelta) -> None:
        self._others = [other for other in range(world_size) if other != rank]
        self._rank, self._timeout = rank, timeout
        self._group: Any = distributed.new_group(backend="gloo")
        self._reported = time.monotonic()
        self._sent: list[tuple[Any, torch.Tensor]] = []  # tensors must live until they have arrived

    def report(self, done: str) -> None:
        """Tell the other ranks what has been done, once a minute at most; nobody needs to listen."""
        if time.monotonic() - self._reported >= _SECONDS_BETWEEN_REPORTS:
            self._send(done, has_come=False)

    def meet(self) -> None:
        """Wait until all ranks have come here.

        Raises:
            RuntimeError: If a rank ends, or reports nothing for longer than the timeout; the message names it and what
                it reported last.
        """
        self._send("came to the barrier", has_come=True)
        for other in self._others:
            self._wait_for(other)
        for work, _ in self._sent:
            work.wait(self._timeout)  # at once, or as soon as another rank has heard of those before this one
        self._sent.clear()

    def _send(self, text: str, has_come: bool) -> None:
        self._reported = time.monotonic()
        message = bytes([has_come]) + text.encode()[: _LENGTH - 1]
        data = torch.frombuffer(bytearray(message.ljust(_LENGTH, b"\0")), dtype=torch.uint8)
        for other in self._others:
            work = distributed.isend(data, dst=other, group=self._group)
            self._sent.append((work, data))

    def _wait_for(self, other: int) -> None:
        last = "nothing"
        data = torch.empty(_LENGTH, dtype=torch.uint8)
        while True:
            try:
                work: Any = distributed.irecv(data, src=other, group=self._group)
                work.wait(self._timeout)
            except RuntimeError as error:
                raise RuntimeError(
                    f"rank {self._rank} waited at a barrier for rank {other}, whose last report was: {last}. Rank "
                    f"{other} has ended, or has reported nothing for {self._timeout.total_seconds():g} s; if it is "
                    f"only slow, raise barrier_timeout_s. {error}"
                ) from error
            has_come, *text = data.tolist()
            if has_come:
                return
            last = bytes(text).rstrip(b"\0").decode(errors="replace")
