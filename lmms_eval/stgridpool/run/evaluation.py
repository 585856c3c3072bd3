"""lmms-eval's settings that it does not pass to a model: where it writes, the time in file names, its caches.

A model receives only its own arguments and the questions. The other settings are parameters of lmms-eval's public
function `simple_evaluate`, which is on the stack whenever it calls the model, so they are read from there. Outside of
an evaluation nothing is read.
"""

import ast
import inspect
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from lmms_eval.loggers.evaluation_tracker import GeneralConfigTracker
from loguru import logger

from lmms_eval_stgridpool.run.failure import functions_of, missing_reports

PARAMETERS = ("cli_args", "datetime_str", "evaluation_tracker", "use_cache", "task_manager")
"""Parameters of `simple_evaluate` that are read."""

_EVALUATOR = "lmms_eval.evaluator"


@dataclass(frozen=True)
class Evaluation:
    """The call of `simple_evaluate` in which a model is used.

    Attributes:
        command_line: lmms-eval's command line; None if another program writes the files and ends the process.
        time: Beginning of the names of the run's files, such as "20260101_120000".
        folder: Folder that lmms-eval will write them to; None if it will write nothing.
        use_cache: Path of lmms-eval's response cache (``--use_cache``); None if it uses none.
    """

    command_line: Namespace | None
    time: str
    folder: Path | None
    use_cache: str | None


def current_evaluation() -> Evaluation | None:
    """Return the evaluation that is running; None if there is none, or if its parameters have other names."""
    values = _values()
    if not set(PARAMETERS) - {"task_manager"} <= values.keys():
        return None
    command_line, time, tracker, use_cache = (values[name] for name in PARAMETERS if name != "task_manager")
    if tracker is None or not isinstance(command_line, Namespace):
        return Evaluation(None, time, None, use_cache)
    return Evaluation(command_line, time.replace(":", "-"), results_folder(command_line), use_cache)


def task_index() -> Mapping[str, Mapping[str, Any]]:
    """Return the index of tasks of the evaluation that is running; empty if there is none."""
    manager = _values().get("task_manager")
    return {} if manager is None else manager.task_index


def refuse_response_cache(evaluation: Evaluation | None, allowed: bool) -> None:
    """Refuse lmms-eval's response cache unless the user allows it.

    Args:
        evaluation: The evaluation that is running, or None.
        allowed: Whether the user allows it.

    Raises:
        ValueError: If the evaluation uses the cache without permission.
    """
    if evaluation is not None and evaluation.use_cache and not allowed:
        raise ValueError(
            f"--use_cache {evaluation.use_cache} may serve answers of another checkpoint, code or video at the same "
            "path: keep answers with resume_dir=FOLDER in --model_args instead, or set allow_use_cache=True"
        )


def uses_response_cache() -> bool:
    """Tell whether lmms-eval answers from its response cache, and warn about the cost if it does.

    lmms-eval does not call a rank whose answers are all in the cache, so the ranks must not wait for each other.
    """
    evaluation = current_evaluation()
    if evaluation is None or not evaluation.use_cache:
        return False
    logger.warning("--use_cache is on, so questions about one video stay on several ranks: use resume_dir instead")
    return True


def unrecognised() -> list[str]:
    """List what this project needs and the installed lmms-eval no longer has, and warn about it."""
    missing = missing_reports()
    missing += [f"{_EVALUATOR}.simple_evaluate({name}=)" for name in PARAMETERS if name not in _parameters()]
    if missing:
        logger.warning(
            f"lmms-eval {version('lmms_eval')} lacks {', '.join(missing)}: an evaluation that fails outside of the "
            "model may end with status 0, so check that results were written"
        )
    return missing


@cache
def _parameters() -> frozenset[str]:
    """Return the names of the parameters of the installed `simple_evaluate`."""
    nodes = (node for function in functions_of(_EVALUATOR, "simple_evaluate") for node in ast.walk(function))
    return frozenset(node.arg for node in nodes if isinstance(node, ast.arg))


def results_folder(arguments: Namespace) -> Path | None:
    """Return the folder that lmms-eval writes results to, for these command-line arguments; None if it writes none."""
    if not arguments.output_path:
        return None
    tracker = GeneralConfigTracker()
    tracker.log_experiment_args(arguments.model, str(arguments.model_args), "", "", False)
    return Path(arguments.output_path) / str(tracker.model_name_sanitized)


def _values() -> Mapping[str, Any]:
    """Return the variables of the running call of `simple_evaluate` by name; none if there is none."""
    frame = inspect.currentframe()
    while frame is not None and not _is_evaluation(frame):
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


def _is_evaluation(frame: FrameType) -> bool:
    return frame.f_code.co_name == "simple_evaluate" and frame.f_globals.get("__name__") == _EVALUATOR
