"""``stgridpool eval``, ``sweep``, ``compare`` and ``extract``: evaluations, and what goes with them."""

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.checking import check_first
from lmms_eval_stgridpool.cli.launching import launch, option_words
from lmms_eval_stgridpool.cli.output import AsJson, logs_on_stderr, print_json
from lmms_eval_stgridpool.cli.resuming import resumable

if TYPE_CHECKING:
    from lmms_eval_stgridpool.comparison.outcome import Outcome
    from lmms_eval_stgridpool.comparison.sweeping import Sweep

TASK = typer.Argument(
    metavar="TASK",
    help="A task of lmms-eval (videomme, ...), or for data on disk (videomme_local, ...), or your table (clips.csv).",
)
CHECKPOINT = typer.Argument(parser=paths.folder_or_name, metavar="CHECKPOINT", help="Folder or hub name.")
ARGUMENTS = typer.Argument(metavar="KEY=VALUE", help="Arguments of the model, such as max_frames_num=32.")
COMPRESSOR = typer.Option("--compressor", "-c", help="A method, or several joined by +; see stgridpool methods.")
PROCESSES = typer.Option("--processes", "-n", help="Default: the number of visible GPUs, or 1.")
OUTPUT = typer.Option(
    "--output", "-o", parser=paths.path, help="Where results go; default: logs/runs/TASK/COMPRESSOR_KEY=VALUE_..."
)
LAUNCH = typer.Option(help='Options of accelerate launch: "--num_machines 2 --machine_rank 0 ...".')
FURTHER = typer.Option("--lmms-eval", help='Further options of lmms-eval: "--limit 20 --verbosity DEBUG".')

TASKS = typer.Option("--tasks", help="Names of tasks, or your own tables (clips.csv), separated by commas.")
MODEL_ARGS = typer.Option("--model_args", "--model-args", help="Arguments of the model: pretrained=FOLDER,...")
INCLUDE = typer.Option("--include_path", "--include-path", parser=paths.path, help="A folder of further task files.")
COMPRESSORS = typer.Argument(metavar="COMPRESSOR", help='NAME or NAME:{"option":value}')
RETENTION = typer.Option(help="Share of the checkpoint's own tokens to keep, 0 to 1; may be repeated.")
RETENTION_OF = typer.Option(help="Definition of retention: entering_llm, layer_average, last_layer or kv_read.")
LIMIT = typer.Option(help="Questions per task, for a trial run: a whole number, or a share below 1.")
UNCOMPRESSED = typer.Option("--uncompressed", help="Also evaluate the checkpoint as it is, without --retention.")
SWEEP_PROCESSES = typer.Option("--processes", "-n", min=1, help="Number of ranks, one GPU each.")
SWEEP_OUTPUT = typer.Option(
    "--output_path", "--output-path", "-o", parser=paths.path, help="Default: logs/runs/TASKS/sweep_KEY=VALUE_..."
)

FOLDERS = typer.Argument(parser=paths.path, metavar="FOLDER", help="Output folders of runs.")
BY = typer.Option("--by", metavar="FIELD", help="Also score by a field of the samples, such as task_category.")
MARKDOWN = typer.Option("--markdown", help="Print the table in Markdown.")
ANYWAY = typer.Option("--anyway", help="Show runs that used different files under one name, too, with a warning.")
PATHS = typer.Argument(parser=paths.path, metavar="PATH", help="Videos, folders, or lists (.txt, a path per line).")


def eval_(
    task: Annotated[str, TASK],
    checkpoint: Annotated[str, CHECKPOINT],
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    compressor: Annotated[str, COMPRESSOR] = "st_gridpool",
    processes: Annotated[int | None, PROCESSES] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    include_path: Annotated[Path | None, INCLUDE] = None,
    launch: Annotated[str, LAUNCH] = "",
    lmms_eval: Annotated[str, FURTHER] = "",
) -> None:
    """Evaluate a checkpoint with a method on a task; a run that was stopped resumes when it is started again.

    Answers are kept in OUTPUT/answers as soon as they are known. Relative paths, also those in task files, start at the
    working directory. The last line says where results are, or why there are none.
    """
    for word in arguments or []:
        if "=" not in word:
            raise ValueError(f"arguments of the model are KEY=VALUE, got {word!r}")
    script = Path(__file__).parents[1] / "run" / "evaluate.sh"
    command = ["bash", str(script), "--name", "stgridpool eval", "--python", sys.executable]
    command += ["--runs", str(Path("logs") / "runs")]
    command += ["--output", str(output)] if output is not None else []
    command += ["--include_path", str(include_path)] if include_path is not None else []
    command += ["--launch", launch] if launch else []
    command += [task, checkpoint, compressor, *([str(processes)] if processes is not None else []), *(arguments or [])]
    command += ["--", *shlex.split(lmms_eval)] if lmms_eval else []
    os.execvp(command[0], command)


def sweep(
    compressors: Annotated[list[str], COMPRESSORS],
    tasks: Annotated[str, TASKS],
    model_args: Annotated[str, MODEL_ARGS],
    retention: Annotated[list[float] | None, RETENTION] = None,
    retention_of: Annotated[str, RETENTION_OF] = "entering_llm",
    include_path: Annotated[Path | None, INCLUDE] = None,
    limit: Annotated[float | None, LIMIT] = None,
    output_path: Annotated[Path | None, SWEEP_OUTPUT] = None,
    uncompressed: Annotated[bool, UNCOMPRESSED] = False,
    processes: Annotated[int, SWEEP_PROCESSES] = 1,
    as_json: AsJson = False,
) -> None:
    """Evaluate several methods together: each video is decoded and encoded once for all of them.

    With --retention every method gets the options that make it keep that share of the tokens after the checkpoint's own
    pooling, however it counts its own budget.
    """
    compared = tuple(compressors), model_args, tuple(retention or ()), retention_of, uncompressed, processes
    check_first("stgridpool sweep", partial(_check, compared, tasks, include_path, limit))
    # Ranks load torch and lmms-eval; what starts them does not.
    from lmms_eval_stgridpool.comparison.folders import kept_answers, output_folder  # noqa: PLC0415
    from lmms_eval_stgridpool.run.model_args import check_passable  # noqa: PLC0415

    if output_path is None:
        others = {"retention_of": retention_of, "limit": limit, "include_path": include_path}
        output_path = output_folder(Path("logs") / "runs", tasks, model_args, **others)
    check_passable("--output_path", str(output_path))
    if processes > 1:
        words: dict[str, object] = {"--tasks": tasks, "--model_args": model_args, "--retention-of": retention_of}
        words |= {"--retention": retention, "--include_path": include_path, "--limit": limit}
        words |= {"--uncompressed": uncompressed}
        words |= {"--output_path": output_path, "--json": as_json}
        kept = kept_answers(model_args, output_path)
        launch(processes, "sweep", [*compressors, *option_words(words)], kept)
    with logs_on_stderr():
        from lmms_eval_stgridpool.comparison.choice import Choice  # noqa: PLC0415
        from lmms_eval_stgridpool.comparison.sweeping import Sweep  # noqa: PLC0415

    choices, options = (
        tuple(map(Choice.parse, compressors)),
        (tuple(retention or ()), retention_of, include_path, limit),
    )
    given = Sweep(choices, tasks, model_args, output_path, *options, has_own=uncompressed)
    with resumable("sweep", given.kept):
        outcome = given.run()
    if outcome.is_first:
        _show(outcome, given, as_json)


def _check(compared: tuple[Any, ...], tasks: str, include: Path | None, limit: float | None) -> tuple[str, ...]:
    """Check a sweep; see `Compared` and `check_sweep`."""
    from lmms_eval_stgridpool.run.sweep_checks import Compared, check_sweep  # noqa: PLC0415

    return check_sweep(Compared(*compared), tasks, include, limit)


def _show(outcome: "Outcome", given: "Sweep", as_json: bool) -> None:
    """Print the table of a sweep and what stands below it.

    Raises:
        ValueError: If there are no rows, or a run failed.
    """
    from lmms_eval_stgridpool.comparison.table import show  # noqa: PLC0415

    if not outcome.rows:
        raise ValueError(f"no compressor could meet its budget: {'; '.join(outcome.remarks)}")
    if as_json:
        print_json(outcome)
    else:
        show(outcome.rows, Console(), given.retention_shown)
        for remark in (*outcome.published, *outcome.remarks):
            typer.echo(remark)
        typer.echo(
            f"Reading and encoding, all compressors together: {outcome.shared_seconds:.3f} seconds per question."
        )
        typer.echo(f"Results: {given.output_path}")
    if outcome.failed:
        raise ValueError(f"a run failed, see above. Results, marked: {given.output_path}")


def compare(
    folders: Annotated[list[Path], FOLDERS],
    by: Annotated[str | None, BY] = None,
    retention_of: Annotated[str, RETENTION_OF] = "last_layer",
    markdown: Annotated[bool, MARKDOWN] = False,
    anyway: Annotated[bool, ANYWAY] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the newest runs of folders in a table: tokens, retention, seconds, and accuracy with its interval.

    A run in which too many questions stayed unanswered is shown without its accuracy. Runs that used different task
    files, weights or frames under the same name are refused.
    """
    from lmms_eval_stgridpool.comparison import table  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.fingerprints import check_comparable  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.finished_run import find_runs  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.rows import rows_of  # noqa: PLC0415
    from stgridpool.options import choice  # noqa: PLC0415
    from stgridpool.retention import DEFINITIONS  # noqa: PLC0415

    choice("--retention-of", retention_of, DEFINITIONS)
    runs = find_runs(folders)
    for warning in check_comparable(runs, anyway):
        typer.echo(f"stgridpool compare: {warning}", err=True)
    rows = [row for run in runs for row in rows_of(run, by, retention_of)]
    if as_json:
        print_json(rows)
    elif markdown:
        typer.echo(table.markdown(rows))
    else:
        table.show(rows, Console(), retention_of)


def extract(
    model_args: Annotated[str, MODEL_ARGS],
    paths: Annotated[list[Path] | None, PATHS] = None,
    tasks: Annotated[str, TASKS] = "",
    include_path: Annotated[Path | None, INCLUDE] = None,
    processes: Annotated[int, SWEEP_PROCESSES] = 1,
    as_json: AsJson = False,
) -> None:
    """Fill a feature cache ahead of time, so that evaluations neither decode nor encode.

    --model_args are those of the evaluation, with feature_cache=FOLDER. Features that are there already stay.
    """
    kept = "all features so far are kept in the cache"
    if processes > 1:
        words: dict[str, object] = {"--tasks": tasks or None, "--model_args": model_args}
        words |= {"--include_path": include_path, "--json": as_json}
        launch(processes, "extract", [*map(str, paths or []), *option_words(words)], kept)
    with logs_on_stderr():
        from lmms_eval_stgridpool.videos.extraction import extract_all  # noqa: PLC0415

    include = [include_path] if include_path is not None else []
    with resumable("extract", kept):
        found = extract_all(paths or [], tasks.split(",") if tasks else [], model_args, include)
    if found.is_first:
        for failure in found.failures:
            typer.echo(failure, err=True)
        if as_json:
            print_json(found)
        else:
            typer.echo(str(found))
    raise typer.Exit(bool(found.failures))
