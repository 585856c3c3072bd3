"""``stgridpool reproduce``: the runs of a published table, and our numbers beside the published ones."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.output import AsJson, print_json, print_table
from lmms_eval_stgridpool.cli.resuming import resumable

if TYPE_CHECKING:
    from lmms_eval_stgridpool.reproduction.running import Outcome, Settings
    from lmms_eval_stgridpool.reproduction.tables import Cell

TABLE = typer.Argument(metavar="TABLE", help="Name of a table; leave it out to list all.")
ARGUMENTS = typer.Argument(metavar="KEY=VALUE", help="Arguments of the model that replace those of the table.")
CHECKPOINT = typer.Option(
    "--checkpoint", parser=paths.folder_or_name, help="Folder or hub name in place of the published checkpoint."
)
DATA = typer.Option(
    "--data",
    parser=paths.path,
    help="Folder with data/; lmms-eval's own tasks then give way to those for data on disk.",
)
BENCHMARKS = typer.Option("--benchmark", "-b", help="Only this column; may be repeated.")
ROWS = typer.Option("--row", "-r", help="Only rows whose names begin with this, such as sttm; may be repeated.")
OUTPUT = typer.Option(
    "--output", "-o", parser=paths.path, help="Folder of the runs; default: logs/runs/reproduce/TABLE."
)
PROCESSES = typer.Option("--processes", "-n", min=1, help="Processes of a run; default: the visible GPUs, or 1.")
FURTHER = typer.Option("--lmms-eval", help='Further options of lmms-eval: "--limit 20".')
DRY_RUN = typer.Option("--dry-run", help="Print the commands and start nothing.")


def reproduce(
    table: Annotated[str | None, TABLE] = None,
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    checkpoint: Annotated[str | None, CHECKPOINT] = None,
    data: Annotated[Path | None, DATA] = None,
    benchmark: Annotated[list[str] | None, BENCHMARKS] = None,
    row: Annotated[list[str] | None, ROWS] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    processes: Annotated[int | None, PROCESSES] = None,
    lmms_eval: Annotated[str, FURTHER] = "",
    dry_run: Annotated[bool, DRY_RUN] = False,
    as_json: AsJson = False,
) -> None:
    """Make the runs of a published table, and show our numbers beside the published ones.

    Runs are made one after the other; the same command resumes where it was stopped, and does not repeat finished runs.
    With feature_cache=FOLDER the runs decode and encode each video only once.
    """
    from lmms_eval_stgridpool.reproduction.running import FAILED, Settings, run_all, start_run  # noqa: PLC0415
    from lmms_eval_stgridpool.reproduction.tables import cells, cells_for  # noqa: PLC0415

    if table is None:
        _list_tables(as_json)
        return
    for word in arguments or []:
        if "=" not in word:
            raise ValueError(f"arguments of the model are KEY=VALUE, got {word!r}")
    found = cells(table, on_disk=data is not None)
    if checkpoint is not None:
        found = cells_for(checkpoint, found)
    chosen = _chosen(found, benchmark or [], row or [])
    output = output or Path("logs") / "runs" / "reproduce" / table
    settings = Settings(output, checkpoint, data, tuple(arguments or ()), processes, lmms_eval)
    if dry_run:
        _print_commands(chosen, settings, as_json)
        return
    with resumable("reproduce", f"finished runs and all answers so far are kept in {output}"):
        outcomes = run_all(chosen, settings, start_run, lambda line: typer.echo(line, err=True))
    if as_json:
        print_json([asdict(one) | {"differs": one.differs} for one in outcomes])
    else:
        _show(outcomes, checkpoint)
    if failed := sum(one.problem == FAILED for one in outcomes):
        text = f"{failed} of {len(outcomes)} runs failed, see above; start it again to resume. Runs: {output}"
        raise ValueError(text)


def _print_commands(cells: Sequence["Cell"], settings: "Settings", as_json: bool) -> None:
    """Print the commands of runs, each with the number to expect as a comment."""
    if as_json:
        folder = settings.data or Path.cwd()
        print_json(
            [asdict(one) | {"folder": folder, "command": ["stgridpool", *settings.command(one)]} for one in cells]
        )
        return
    if settings.data is not None:
        typer.echo(shlex.join(["cd", str(settings.data)]))
    for cell in cells:
        published = "not known here" if cell.published is None else f"{cell.published} %"
        command = shlex.join(["stgridpool", *settings.command(cell)])
        typer.echo(f"{command}  # {cell.row}, {cell.benchmark}, published: {published}")


def _list_tables(as_json: bool) -> None:
    from lmms_eval_stgridpool.reproduction.tables import cells, source_of, table_names  # noqa: PLC0415

    rows = [(name, len(cells(name)), source_of(name) or "numbers not known here") for name in table_names()]
    if as_json:
        print_json([dict(zip(("table", "runs", "source"), row, strict=True)) for row in rows])
    else:
        print_table(("table", "runs", "source"), rows)


def _chosen(cells: Sequence["Cell"], benchmarks: Sequence[str], rows: Sequence[str]) -> list["Cell"]:
    """Choose the cells of some columns and rows.

    Raises:
        ValueError: If a name fits none.
    """
    columns = dict.fromkeys(cell.benchmark for cell in cells)
    for name in benchmarks:
        if name not in columns:
            raise ValueError(f"the table has no benchmark {name!r}, but {', '.join(columns)}")
    names = dict.fromkeys(cell.row for cell in cells)
    for beginning in rows:
        if not any(name.startswith(beginning) for name in names):
            raise ValueError(f"the table has no row that begins with {beginning!r}, but {', '.join(names)}")
    return [
        cell
        for cell in cells
        if (not benchmarks or cell.benchmark in benchmarks) and (not rows or cell.row.startswith(tuple(rows)))
    ]


def _show(outcomes: Sequence["Outcome"], ours: str | None) -> None:
    """Print a table for each checkpoint; `ours` names the one that ran in its place."""
    from lmms_eval_stgridpool.reproduction.running import NO_SCORE  # noqa: PLC0415

    columns = dict.fromkeys(one.cell.benchmark for one in outcomes)
    for checkpoint in dict.fromkeys(one.cell.checkpoint for one in outcomes):
        found = {(one.cell.row, one.cell.benchmark): one for one in outcomes if one.cell.checkpoint == checkpoint}
        rows = [
            (row, *(found.get((row, column)) for column in columns)) for row in dict.fromkeys(name for name, _ in found)
        ]
        name = checkpoint if ours is None else f"{ours} in place of {checkpoint}"
        typer.echo(f"{name}: accuracy in %, ours / published")
        print_table(("", *columns), rows)
    typer.echo("!: the published number is outside of the 95 % interval of ours (without one: more than a point away)")
    if any(one.problem == NO_SCORE for one in outcomes):
        typer.echo("no score: the run wrote a file for the benchmark's server, see stgridpool submit")
