"""``stgridpool doctor``: what would break a run on this machine, and how to fix it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.output import AsJson, logs_on_stderr, print_json, print_table
from lmms_eval_stgridpool.cli.progress import bars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmms_eval_stgridpool.health.finding import Finding
    from lmms_eval_stgridpool.health.weights import Progress

CHECKPOINT = typer.Option(
    parser=paths.folder_or_name, metavar="FOLDER_OR_NAME", help="Check a checkpoint: its files, settings, weights."
)
TASK = typer.Option("--task", help="Check the data of a task on this disk; may be repeated.")
INCLUDE = typer.Option("--include_path", "--include-path", parser=paths.path, help="A folder of further task files.")
QUICK = typer.Option("--quick", help="Neither read the weights nor open the videos.")


def doctor(
    checkpoint: Annotated[str | None, CHECKPOINT] = None,
    task: Annotated[list[str] | None, TASK] = None,
    include_path: Annotated[list[Path] | None, INCLUDE] = None,
    quick: Annotated[bool, QUICK] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine, a checkpoint and the data of tasks, and say how to fix what is wrong.

    Nothing is downloaded. Ends with status 1 if something would break a run.
    """
    from lmms_eval_stgridpool.cli.quiet import offline, quiet  # noqa: PLC0415

    offline()
    quiet()
    with bars() as progress:
        found = list(_findings(checkpoint, task or [], include_path or [], None if quick else progress))
    problems = [finding for finding in found if finding.state == "problem"]
    if as_json:
        print_json(found)
    else:
        print_table(
            ("", "checked", "found", "repair"),
            [(finding.state, finding.subject, finding.text, finding.repair) for finding in found],
        )
        warnings = sum(finding.state == "warning" for finding in found)
        typer.echo(f"problems: {len(problems)}, warnings: {warnings}, ok: {len(found) - len(problems) - warnings}")
    raise typer.Exit(bool(problems))


def _findings(
    checkpoint: str | None, tasks: list[str], include: list[Path], progress: "Progress | None"
) -> "Iterator[Finding]":
    from lmms_eval_stgridpool.health.weights import check_checkpoint  # noqa: PLC0415

    with logs_on_stderr():
        from lmms_eval_stgridpool.health import machine  # noqa: PLC0415
        from lmms_eval_stgridpool.health.task_data import check_task  # noqa: PLC0415

    yield from machine.check_versions()
    yield from machine.check_plug_in()
    yield from machine.check_devices()
    yield from machine.check_readers()
    yield from machine.check_disks([("working directory", Path.cwd()), ("hub's cache", machine.hub_cache())])
    if checkpoint is not None:
        yield from check_checkpoint(checkpoint, progress)
    for name in tasks:
        yield from check_task(name, include, progress)
