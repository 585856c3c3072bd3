"""A process that a launcher has started ends with the launcher, however that ends.

accelerate and torchrun end their processes when they are asked to end. Killed, they cannot, and accelerate's launcher
of a single process never does: what it has started would run on and hold its GPU. The kernel sees to it instead.

A launcher may also end while its processes still import, before they can ask the kernel for anything. They notice it
later, as an orphan is adopted: by the first process of the machine or container, or by systemd. Not covered are other
adopters (`PR_SET_CHILD_SUBREAPER`) and other systems than Linux; scripts/evaluate.sh ends its processes there, too.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_SET_BY_TORCH = "TORCHELASTIC_RUN_ID"
_SET_BY_ACCELERATE = "ACCELERATE_MIXED_PRECISION"
_LAUNCHERS = ("accelerate", "accelerate.commands.launch")


def end_with_launcher() -> None:
    """Let the kernel kill this process as soon as the launcher that has started it ends; Linux only.

    A process that no launcher has started, from a shell for instance, goes on when its parent ends: ``nohup`` works.

    Raises:
        SystemExit: If the launcher has ended already.
    """
    parent = os.getppid()
    by_torch = _SET_BY_TORCH in os.environ
    if sys.platform != "linux":
        return
    if (by_torch or _SET_BY_ACCELERATE in os.environ) and _is_adopter(parent):
        raise SystemExit("the launcher that started this process has ended: so does the process")
    if by_torch or _is_launcher(parent):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended just before
            os.kill(os.getpid(), signal.SIGKILL)


def _is_adopter(process: int) -> bool:
    """Whether a process takes in orphans; one that runs this very Python is a launcher, even as number 1."""
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
