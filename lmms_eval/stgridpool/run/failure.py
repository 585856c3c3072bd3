"""A failed run ends with a non-zero status, whatever lmms-eval does with the exception.

lmms-eval's command line prints an exception, continues, and ends with status 0. With several ranks, the others then
wait for the one that failed. Our own errors therefore end the process immediately. For errors outside of our methods
(loading data, scoring, writing results), a log sink watches for the messages with which lmms-eval reports a failure. We
check in its source that the installed version still has these messages.

The launcher (accelerate, torchrun) ends the other processes as soon as one has ended. A process that fails must
therefore end even if one of its threads never returns, or if its process group waits for the other ranks. If there are
other ranks, the process sets an alarm, which the kernel delivers regardless of what the process is doing.
"""

import ast
import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from loguru import logger
from torch import distributed

from lmms_eval_stgridpool.run.cause import note_cause

if TYPE_CHECKING:
    from loguru import Message, Record

GRACE_SECONDS = 5
"""Time that a failed process has for an orderly exit."""

REPORTS = {
    ("lmms_eval.__main__", "cli_evaluate"): "Error during evaluation",
    ("lmms_eval.loggers.evaluation_tracker", "save_results_aggregated"): "Could not save results aggregated",
    ("lmms_eval.loggers.evaluation_tracker", "save_results_samples"): "Could not save sample results",
}
"""Beginning of the message that reports a failed run, by module and function of lmms-eval."""

_BEGINNINGS = {function: beginning for (_, function), beginning in REPORTS.items()}


def exit_when_lmms_eval_gives_up() -> int:
    """End the process with status 1 as soon as lmms-eval reports a failed run, instead of letting it continue.

    Returns:
        The handler's id, for ``logger.remove``.
    """
    return logger.add(_leave, level="WARNING", filter=_is_report, catch=False)


def missing_reports() -> list[str]:
    """List functions of the installed lmms-eval that no longer report failures with the messages in `REPORTS`."""
    return [f"{module}.{name}" for (module, name), text in REPORTS.items() if not _says(module, name, text)]


def end_with_failure() -> None:
    """Make the process end with status 1 even if it exits in an orderly way.

    Python ignores the results of its exit handlers. Handlers of the C library run after Python has finished, when all
    files are written and closed, and may call ``_exit(1)``.
    """
    library = ctypes.CDLL(None)
    leave = ctypes.cast(library._exit, ctypes.c_void_p)
    library.__cxa_atexit(leave, ctypes.c_void_p(1), None)


@contextmanager
def fatal(where: str, let_through: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """End the process with status 1 if an exception leaves the block.

    Args:
        where: What the block does, on which rank and for which document; for the log.
        let_through: Exceptions that the caller handles.

    Raises:
        SystemExit: With status 1, instead of the exception.
    """
    try:
        yield
    except let_through:
        raise
    except Exception as error:  # any error: lmms-eval would print it and end with status 0
        cause = f"{where}: {type(error).__name__}: {error}"
        logger.opt(exception=True).critical(cause)
        note_cause(cause)
        raise _ending() from error


def _is_report(record: "Record") -> bool:
    beginning = _BEGINNINGS.get(record["function"])
    return beginning is not None and record["message"].startswith(beginning)


def functions_of(module: str, name: str) -> list[ast.FunctionDef]:
    """Find functions and methods by name in a module's source. Importing lmms-eval's ``__main__`` would run it."""
    return [function for function in _functions(module) if function.name == name]


@cache
def _functions(module: str) -> tuple[ast.FunctionDef, ...]:
    found = find_spec(module)
    if found is None or found.origin is None:
        return ()
    body = ast.parse(Path(found.origin).read_text(encoding="utf-8")).body
    nodes = [*body, *(node for parent in body if isinstance(parent, ast.ClassDef) for node in parent.body)]
    return tuple(node for node in nodes if isinstance(node, ast.FunctionDef))


@cache
def _says(module: str, name: str, beginning: str) -> bool:
    """Tell whether a function contains a string that begins with `beginning`."""
    nodes = [node for function in functions_of(module, name) for node in ast.walk(function)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return any(isinstance(text, str) and text.startswith(beginning) for text in texts)


def _leave(message: "Message") -> NoReturn:
    cause, _, _ = message.record["message"].partition(". Please set `--verbosity")
    note_cause(cause)  # the other handlers print the message
    raise _ending()


def _ending() -> SystemExit:
    """Return the exception that ends this process with status 1; if there are other ranks, set the alarm."""
    if distributed.is_available() and distributed.is_initialized():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(GRACE_SECONDS)
    return SystemExit(1)
