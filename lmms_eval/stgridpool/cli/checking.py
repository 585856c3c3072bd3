"""Checks of a command before it loads anything."""

import os
import sys
from collections.abc import Callable
from functools import partial
from signal import SIGINT

from lmms_eval_stgridpool.cli.launching import is_launched
from lmms_eval_stgridpool.run.cause import note_cause
from lmms_eval_stgridpool.run.without_torch import run_without_torch


def check_first(name: str, check: Callable[[], tuple[str, ...]]) -> None:
    """Check what a command is about to do; of several ranks the first does, unless the command has started them itself.

    Args:
        name: Name of the command, for warnings.
        check: The check, which returns warnings. It imports what it needs, see `run_without_torch`.

    Raises:
        ValueError: If the command cannot work; the message, one line, says why.
        SystemExit: If that has been said, or Ctrl-C stops the check, which is one line, too.
    """
    if os.environ.get("RANK", "0") != "0" or is_launched():
        return
    try:
        run_without_torch(partial(_report, name, check))
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: stopped before anything was loaded\n")
        raise SystemExit(128 + SIGINT) from None


def _report(name: str, check: Callable[[], tuple[str, ...]]) -> None:
    try:
        warnings = check()
    except (ValueError, TypeError, OSError) as error:
        note_cause(str(error))
        raise ValueError(" ".join(str(error).split())) from error
    for warning in warnings:
        sys.stderr.write(f"{name}: {warning}\n")
