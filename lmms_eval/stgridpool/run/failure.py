"""A failed run ends with a non-zero status, whatever lmms-eval does with the exception.

lmms-eval's command line prints an exception, goes on and ends with status 0; on several processes the others then wait
for the one that failed. Our own errors therefore end the process at once. For errors outside our methods (loading data,
scoring, writing results) a sink listens to the messages with which lmms-eval reports that it has given up. Whether the
installed version still has these messages is looked up in its source.

The launcher (accelerate, torchrun) ends the other processes when one has ended, so one that fails must really end: a
thread that never returns, or a process group that waits for the others, would hold it for ever. A process that has
others beside it therefore gets an alarm, which the kernel carries out whatever the process is doing.
"""

import ast
import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from loguru import logger
from torch import distributed

GRACE_SECONDS = 5
"""Time that a failed process gets to end in order."""

REPORTS = {
    ("lmms_eval.__main__", "cli_evaluate"): "Error during evaluation",
    ("lmms_eval.loggers.evaluation_tracker", "save_results_aggregated"): "Could not save results aggregated",
    ("lmms_eval.loggers.evaluation_tracker", "save_results_samples"): "Could not save sample results",
}
"""By module and function of lmms-eval: how its message begins when the run has failed."""

_BEGINNINGS = {function: beginning for (_, function), beginning in REPORTS.items()}


def exit_when_lmms_eval_gives_up() -> int:
    """From now on, end the process with status 1 where lmms-eval reports a failed run and would go on.

    Returns:
        The handler's id, for ``logger.remove``.
    """
    return logger.add(_leave, level="WARNING", filter=_is_report, catch=False)


def missing_reports() -> list[str]:
    """Functions of the installed lmms-eval that no longer report a failure in the words that are listened to."""
    return [f"{module}.{name}" for (module, name), text in REPORTS.items() if not _says(module, name, text)]


def end_with_failure() -> None:
    """Make the process end with status 1, even if it ends in order.

    Python takes no status from what it calls at its end. The C library does: it calls ``_exit(1)`` when Python has
    finished and everything is written and closed.
    """
    library = ctypes.CDLL(None)
    leave = ctypes.cast(library._exit, ctypes.c_void_p)
    library.__cxa_atexit(leave, ctypes.c_void_p(1), None)


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
    beginning = _BEGINNINGS.get(record["function"])
    return beginning is not None and record["message"].startswith(beginning)


def functions_of(module: str, name: str) -> list[ast.FunctionDef]:
    """Functions of this name in the source of a module; it is not imported, as lmms-eval's ``__main__`` would run."""
    return [function for function in _functions(module) if function.name == name]


@cache
def _functions(module: str) -> tuple[ast.FunctionDef, ...]:
    found = find_spec(module)
    if found is None or found.origin is None:
        return ()
    nodes = ast.walk(ast.parse(Path(found.origin).read_text(encoding="utf-8")))
    return tuple(node for node in nodes if isinstance(node, ast.FunctionDef))


def _says(module: str, name: str, beginning: str) -> bool:
    """Whether a function holds a text that begins so."""
    nodes = [node for function in functions_of(module, name) for node in ast.walk(function)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return any(isinstance(text, str) and text.startswith(beginning) for text in texts)


def _leave(message: Any) -> NoReturn:  # noqa: ARG001 - the other handlers print it
    raise _ending()


def _ending() -> SystemExit:
    """What ends this process with status 1, after an alarm is set where it has others beside it."""
    if distributed.is_available() and distributed.is_initialized():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(GRACE_SECONDS)
    return SystemExit(1)
