"""Processes that tests start."""

import time
from collections.abc import Sequence

import psutil


def left_running(processes: Sequence[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait until processes have ended, and return those that have not after `timeout` seconds.

    One that has ended counts as such even if its parent, or init after the parent's death, has not asked for its
    status yet, which psutil's own `wait_procs` waits for.
    """
    deadline = time.monotonic() + timeout
    alive = list(processes)
    while alive and time.monotonic() < deadline:
        _, alive = psutil.wait_procs(alive, 0.05)
        alive = [process for process in alive if not _has_ended(process)]
    return alive


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
