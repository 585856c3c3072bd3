"""Checks for ``evaluate.sh``: prints what it needs to know of a run, or why the run cannot work, in one line."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it silently, also while it imports; the script says so
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from lmms_eval_stgridpool.kept.paths import folder_name
from lmms_eval_stgridpool.run.cause import is_checked_by_script, note_cause
from lmms_eval_stgridpool.run.checks import ARGUMENTS, check_run
from lmms_eval_stgridpool.run.device_checks import is_on_cpu
from lmms_eval_stgridpool.run.model_args import check_passable
from lmms_eval_stgridpool.run.table_tasks import with_tables
from lmms_eval_stgridpool.run.task_checks import Asked
from lmms_eval_stgridpool.run.task_files import folder_to_include, index_of
from lmms_eval_stgridpool.run.without_torch import run_without_torch

WRONG = 2
"""Exit status if the run cannot work."""


def check(name: str, words: Sequence[str]) -> list[str]:
    """Check a run, and return what the script needs to know.

    Args:
        name: Name of the calling command, for warnings.
        words: ``--launch``, ``--include_path``, ``--processes``, ``--runs`` and ``--output`` with values that may be
            empty, the task or table, the checkpoint, the compressor, arguments of the model, and ``--`` with options of
            lmms-eval.

    Returns:
        The number of GPUs, the names of model and tasks in lmms-eval, the folder of the task files, the folder for
        results, and each option of the launcher.

    Raises:
        ValueError: If the run cannot work.
        TypeError: If a path is a number.
    """
    end = words.index("--") if "--" in words else len(words)
    own, theirs = _own_options(words[:end]), lmms_eval_options(words[end + 1 :])
    asked = Asked(theirs.limit, theirs.offset)
    check_passable("the checkpoint", own.checkpoint)
    given = own.include_path or theirs.include_path
    include = Path(given) if given else None
    names, tables = with_tables(own.task, Path(own.runs))
    if tables and len(names) > 1:
        raise ValueError(f"a table is run alone, got {own.task}; stgridpool sweep runs several tasks together")
    folder = tables[0] if tables else folder_to_include(names, include)
    if own.processes and not own.processes.isdecimal():
        raise ValueError(f"NUM_PROCESSES must be a number from 1, got {own.processes}")
    output = own.output or str(_default_output(own, names, words[end + 1 :]))
    check_passable("--output", output)
    launch = _launch_options(own.launch)
    checked = check_run(
        ",".join(names),
        ",".join([f"pretrained={own.checkpoint}", f"compressor={own.compressor}", *own.arguments]),
        int(own.processes) if own.processes else None,
        [*tables, *([] if include is None else [include])],
        model=theirs.model,
        machines=_machines(launch),
        on_cpu=is_on_cpu(),
        asked=asked,
    )
    for warning in checked.warnings:
        sys.stderr.write(f"{name}: {warning}\n")
    return [str(checked.num_gpus), checked.model, ",".join(names), str(folder), output, *launch]


def _default_output(own: argparse.Namespace, names: Sequence[str], further: Sequence[str]) -> Path:
    """Return where results go unless told otherwise; runs with other options write elsewhere."""
    include = [f"include_path={own.include_path}"] if own.include_path else []
    words = [own.compressor, *include, *own.arguments, *further]
    return Path(own.runs) / folder_name(["+".join(names)]) / folder_name(words)


def _own_options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--launch", "--include_path", "--processes", "--runs", "--output"):
        parser.add_argument(option, default="")
    for argument in ("task", "checkpoint", "compressor"):
        parser.add_argument(argument)
    parser.add_argument("arguments", nargs="*")
    return parser.parse_args(list(words))


def _launch_options(text: str) -> list[str]:
    """Split options of accelerate's launcher as a shell does.

    Raises:
        ValueError: If a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"--launch must hold options as in a shell, got {text}: {error}; close the quote") from error


def _machines(launch: Sequence[str]) -> int:
    """Return the number of machines in options of accelerate's launcher."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--num_machines", type=int, default=1)
    machines: int = parser.parse_known_args(launch)[0].num_machines
    return machines


def check_command_line(words: Sequence[str]) -> None:
    """Check the run that lmms-eval's own command line describes; the first of several ranks does.

    lmms-eval alone checks a configuration file, and a command line that lacks a model of ours, its arguments or tasks.
    accelerate's launcher prints a traceback below the message; with several processes it ends with a table that
    repeats the message, see `note_cause`, and with one, its option ``--quiet`` leaves the traceback out.

    Args:
        words: The command line.

    Raises:
        SystemExit: If the run cannot work; the message, one line, says why.
    """
    try:
        given = lmms_eval_options(words)
    except ValueError:  # lmms-eval's own parser says so
        return
    if (
        given.model not in ARGUMENTS
        or given.model_args is None
        or not given.tasks
        or os.environ.get("RANK", "0") != "0"
    ):
        return
    include = None if given.include_path is None else Path(given.include_path)
    try:
        tasks, folders = given.tasks.split(","), [] if include is None else [include]
        checked = check_run(
            given.tasks, given.model_args, None, folders, model=given.model, asked=Asked(given.limit, given.offset)
        )
        own = folder_to_include(tasks, include)
        if own != include and (missing := [name for name in tasks if name in index_of(own)]):
            raise ValueError(
                f"{missing[0]} ships with stgridpool: name its folder, --include_path {shlex.quote(str(own))}"
            )
    except (ValueError, TypeError, OSError) as error:
        note_cause(str(error))
        raise SystemExit(f"lmms_eval: {' '.join(str(error).split())}") from error
    for warning in () if is_checked_by_script() else checked.warnings:
        sys.stderr.write(f"lmms_eval: {warning}\n")


def lmms_eval_options(words: Sequence[str]) -> argparse.Namespace:
    """Read those options of lmms-eval that the checks need; others are left to lmms-eval.

    Raises:
        ValueError: If one lacks its value, or needs a number and has none.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for option in ("--include_path", "--model", "--model_args", "--tasks"):
        parser.add_argument(option)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--offset", type=int, default=0)
    try:
        return parser.parse_known_args(list(words))[0]
    except argparse.ArgumentError as error:
        raise ValueError(str(error).removeprefix("argument ")) from error


def main() -> None:
    """Check the run that ``NAME ...`` describes; an error is one line on standard error, and status 2."""
    run_without_torch(_main)


def _main() -> None:
    name, *words = sys.argv[1:]
    try:
        lines = check(name, words)
    except (ValueError, TypeError, OSError) as error:
        sys.stderr.write(f"{name}: {' '.join(str(error).split())}\n")
        raise SystemExit(WRONG) from None
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
