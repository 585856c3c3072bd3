"""What lmms-eval was asked for, beyond what it tells a model: where it writes, under which time, with which caches.

A model gets its own arguments and the questions. The rest stands in the call of lmms-eval's `simple_evaluate`, a public
function with public parameters, which is on the stack whenever it calls the model; it is read there. Nothing is read
where a model is used without it.
"""

import ast
import inspect
from argparse import Namespace
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from lmms_eval.loggers.evaluation_tracker import GeneralConfigTracker
from loguru import logger

from lmms_eval_stgridpool.run.failure import functions_of, missing_reports

PARAMETERS = ("cli_args", "datetime_str", "evaluation_tracker", "use_cache")
"""Parameters of `simple_evaluate` that are read."""

_EVALUATOR = "lmms_eval.evaluator"


@dataclass(frozen=True)
class Evaluation:
    """The call of `simple_evaluate` that a model works for.

    Attributes:
        command_line: lmms-eval's command line; None where another program makes the files and ends the process.
        time: What the names of the run's files begin with, such as "20260101_120000".
        folder: Where lmms-eval will write them; None where it will write nothing.
        use_cache: Where lmms-eval keeps answers (``--use_cache``); None where it keeps none.
    """

    command_line: Namespace | None
    time: str
    folder: Path | None
    use_cache: str | None


def current_evaluation() -> Evaluation | None:
    """The evaluation in whose course this is called; None outside of one, or where its parameters have other names."""
    frame = inspect.currentframe()
    while frame is not None and not _is_evaluation(frame):
        frame = frame.f_back
    if frame is None or not set(PARAMETERS) <= frame.f_locals.keys():
        return None
    command_line, time, tracker, use_cache = (frame.f_locals[name] for name in PARAMETERS)
    if tracker is None or not isinstance(command_line, Namespace):
        return Evaluation(None, time, None, use_cache)
    return Evaluation(command_line, time.replace(":", "-"), results_folder(command_line), use_cache)


def refuse_response_cache(evaluation: Evaluation | None, allowed: bool) -> None:
    """Make sure that no answers come from lmms-eval's response cache without the user's consent.

    Raises:
        ValueError: If they would.
    """
    if evaluation is not None and evaluation.use_cache and not allowed:
        raise ValueError(
            f"--use_cache {evaluation.use_cache} serves answers of another checkpoint, code or video at the same path: "
            "keep answers with resume_dir=FOLDER in --model_args instead, or give allow_use_cache=True"
        )


def uses_response_cache() -> bool:
    """Check whether lmms-eval answers from its response cache; a warning says what that costs.

    A rank whose answers are all in that cache is never called, so the ranks must not wait for each other.
    """
    evaluation = current_evaluation()
    if evaluation is None or not evaluation.use_cache:
        return False
    logger.warning(
        "--use_cache is on: questions about one video stay on several processes; use resume_dir instead of it"
    )
    return True


def unrecognised() -> list[str]:
    """What this project relies on and the installed lmms-eval no longer has; a warning says so."""
    missing = missing_reports()
    functions = functions_of(_EVALUATOR, "simple_evaluate")
    known = {argument.arg for function in functions for argument in ast.walk(function) if isinstance(argument, ast.arg)}
    missing += [f"{_EVALUATOR}.simple_evaluate({name}=)" for name in PARAMETERS if name not in known]
    if missing:
        logger.warning(
            f"lmms-eval {version('lmms_eval')} is not recognised, it lacks {', '.join(missing)}: an evaluation that "
            "fails outside of the model may end with status 0, so look whether results were written"
        )
    return missing


def results_folder(arguments: Namespace) -> Path | None:
    """The folder into which lmms-eval writes the results of a run with these command-line arguments."""
    if not arguments.output_path:
        return None
    tracker = GeneralConfigTracker()
    tracker.log_experiment_args(arguments.model, str(arguments.model_args), "", "", False)
    return Path(arguments.output_path) / tracker.model_name_sanitized


def _is_evaluation(frame: FrameType) -> bool:
    return frame.f_code.co_name == "simple_evaluate" and frame.f_globals.get("__name__") == _EVALUATOR
