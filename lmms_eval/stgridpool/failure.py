"""A failed run ends with a non-zero status, whatever lmms-eval does with the exception.

lmms-eval's command line prints an exception, goes on and ends with status 0; on several processes the others then wait
for the one that failed. Our own errors therefore end the process at once. For errors outside our methods (loading data,
scoring, writing results) a sink listens to the messages with which lmms-eval reports that it has given up.

The launcher (accelerate, torchrun) ends the other processes when one has ended, so one that fails must really end: a
thread that never returns, or a process group that waits for the others, would hold it for ever. A process that has
others beside it therefore gets an alarm, which the kernel carries out whatever the process is doing.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from loguru import logger
from torch import distributed

GRACE_SECONDS = 5
"""Time that a failed process gets to end in order."""

_GIVEN_UP = {"cli_evaluate": "Error during evaluation"}
_NOT_SAVED = {
    "save_results_aggregated": "Could not save results aggregated",
    "save_results_samples": "Could not save sample results",
}
_REPORTS = _GIVEN_UP | _NOT_SAVED
"""By lmms-eval's function: how its message begins when the run has failed."""


def exit_when_lmms_eval_gives_up() -> int:
    """From now on, end the process with status 1 where lmms-eval reports a failed run and would go on.

    Returns:
        The handler's id, for ``logger.remove``.
    """
    return logger.add(_leave, level="WARNING", filter=_is_report, catch=False)


@contextmanager
def fatal(where: str, let_through: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """End the process with status 1 if an exception leaves the block.

    Args:
        where: What was being done, by which rank and for which document; it stands in the log.
        let_through: Exceptions that the caller handles.

    Raises:
        SystemExit: With status 1, instead of the exception.
    """
    try:
        yield
    except let_through:
        raise
    except Exception as error:  # whatever it is: lmms-eval would print it and end with status 0
        logger.opt(exception=True).critical(f"{where}: {type(error).__name__}: {error}")
        raise _ending() from error


def _is_report(record: Any) -> bool:
    beginning = _REPORTS.get(record["function"])
    return beginning is not None and record["message"].startswith(beginning)


def _leave(message: Any) -> NoReturn:  # noqa: ARG001 - the other handlers print it
    raise _ending()


def _ending() -> SystemExit:
    """What ends this process with status 1, after an alarm is set where it has others beside it."""
    if distributed.is_available() and distributed.is_initialized():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(GRACE_SECONDS)
    return SystemExit(1)
