"""A process that a launcher has started ends with the launcher, however that ends.

accelerate and torchrun end their processes when they are asked to end. Killed, they cannot, and accelerate's launcher
of a single process never does: what it has started would run on and hold its GPU. The kernel sees to it instead.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

from torch import distributed

_PR_SET_PDEATHSIG = 1
_LAUNCHERS = ("accelerate", "accelerate.commands.launch")


def end_with_launcher() -> None:
    """Let the kernel kill this process as soon as the launcher that has started it ends; Linux only.

    A process that no launcher has started, from a shell for instance, goes on when its parent ends: ``nohup`` works.
    """
    parent = os.getppid()
    if sys.platform != "linux" or not (distributed.is_torchelastic_launched() or _is_launcher(parent)):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended just before
        os.kill(os.getpid(), signal.SIGKILL)


def _is_launcher(process: int) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return any(Path(word).name in _LAUNCHERS for word in words)
