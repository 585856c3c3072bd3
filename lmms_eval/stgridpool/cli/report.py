"""``stgridpool report``: tables, plots and examples of finished runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from lmms_eval_stgridpool.report.content import Table

FOLDERS = typer.Argument(
    parser=paths.path, metavar="FOLDER", help="Output folders of runs or sweeps, ours or lmms-eval's own."
)
OUTPUT = typer.Option(
    "--output", "-o", parser=paths.path, help=".html, .md, .tex, or .png (one file per plot); may be repeated."
)
BASELINE = typer.Option(help="Name of the run that the others are compared with; default: the first.")
BY = typer.Option("--by", metavar="FIELD", help="Score by kinds of questions, such as duration; may be repeated.")
PUBLISHED = typer.Option("--published", metavar="SOURCE", help='Lay published numbers beside: "STTM"; may be repeated.')
EXAMPLES = typer.Option("--examples", min=0, help="Maximum number of questions to show on which runs disagree.")
VIDEOS = typer.Option(
    "--videos", parser=paths.path, help="Folder with the videos of the examples, named by the task's videoID."
)
SUFFIXES = (".html", ".md", ".tex", ".png")


def report(
    folders: Annotated[list[Path], FOLDERS],
    output: Annotated[list[Path] | None, OUTPUT] = None,
    baseline: Annotated[str | None, BASELINE] = None,
    by: Annotated[list[str] | None, BY] = None,
    published: Annotated[list[str] | None, PUBLISHED] = None,
    examples: Annotated[int, EXAMPLES] = 0,
    videos: Annotated[Path | None, VIDEOS] = None,
    as_json: AsJson = False,
) -> None:
    """Report on runs: differences to a baseline with intervals and p-values, kinds of questions, plots, examples."""
    for path in output or ():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"--output must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {path}")
    from dataclasses import replace  # noqa: PLC0415

    from lmms_eval_stgridpool.report.content import make_report  # noqa: PLC0415
    from lmms_eval_stgridpool.report.examples import find_examples  # noqa: PLC0415
    from lmms_eval_stgridpool.report.markdown import to_markdown  # noqa: PLC0415
    from lmms_eval_stgridpool.report.runs import read_task_runs  # noqa: PLC0415
    from lmms_eval_stgridpool.report.writing import write_report  # noqa: PLC0415

    runs = read_task_runs(folders)
    found = make_report(runs, baseline, by or (), published or ())
    found = replace(found, examples=find_examples(runs, baseline, examples, videos) if examples else ())
    written = [path for one in output or () for path in write_report(found, one)]
    if as_json:
        print_json({"warnings": list(found.warnings), "tables": [_as_dict(table) for table in found.tables]})
    elif written:
        typer.echo("\n".join(map(str, written)))
    else:
        typer.echo(to_markdown(found))


def _as_dict(table: "Table") -> dict[str, object]:
    return {"title": table.title, "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}
