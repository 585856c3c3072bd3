"""Processes that end together with the launcher that started them, even if it is killed.

accelerate and torchrun end their processes when they are asked to stop. They cannot do so when they are killed, and
accelerate's launcher for a single process never does: the process would keep running and occupy its GPU. Here the
kernel ends the process instead.

A launcher may also end while its processes are still importing modules, before they have called the kernel. They detect
this later, because an orphan is adopted by the first process of the machine or container, or by systemd. Other adopters
(`PR_SET_CHILD_SUBREAPER`) and systems other than Linux are not covered; scripts/evaluate.sh ends its processes there,
too.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_SET_BY_TORCH = "TORCHELASTIC_RUN_ID"
_SET_BY_ACCELERATE = "ACCELERATE_MIXED_PRECISION"
_LAUNCHERS = ("accelerate", "accelerate.commands.launch", "lmms_eval_stgridpool.run.quiet_launch")


def end_with_launcher() -> None:
    """Have the kernel kill this process as soon as the launcher that started it ends; Linux only.

    A process that was not started by a launcher, but from a shell for instance, survives its parent: ``nohup`` works.

    Raises:
        SystemExit: If the launcher has already ended.
    """
    parent = os.getppid()
    by_torch = _SET_BY_TORCH in os.environ
    if sys.platform != "linux":
        return
    if (by_torch or _SET_BY_ACCELERATE in os.environ) and _is_adopter(parent):
        raise SystemExit("this process ends because the launcher that started it has ended")
    if by_torch or _is_launcher(parent):
        end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent ends; Linux only.

    Args:
        parent: The parent's process ID.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), signal.SIGKILL)


def _is_adopter(process: int) -> bool:
    """Tell whether a process adopts orphans; one that runs the same Python is a launcher, even if its id is 1."""
    try:
        if process == 1:
            return not Path("/proc/1/exe").samefile(sys.executable)
        return Path(f"/proc/{process}/comm").read_text().strip() == "systemd"
    except OSError:  # another user's process
        return process == 1


def _is_launcher(process: int) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return any(Path(word).name in _LAUNCHERS for word in words)
