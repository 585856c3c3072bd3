"""The table that compares runs, for a terminal and in Markdown."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from lmms_eval_stgridpool.comparison.rows import Row
from lmms_eval_stgridpool.comparison.units import PERCENT


def cells(row: Row) -> list[str]:
    """Format the cells of a row, with a dash for each unknown value."""

    def text(value: float | None, digits: int, factor: int = 1) -> str:
        return "-" if value is None else f"{factor * value:.{digits}f}"

    digits = 2 if row.unit == PERCENT or abs(row.score) > 1 else 4
    accuracy = text(row.score, digits) + ("" if row.interval is None else f" ± {text(row.interval, digits)}")
    return [
        row.run,
        text(row.tokens_per_frame, 1),
        f"{text(row.tokens_per_video, 0)} + {text(row.newlines_per_video, 0)}",
        f"{text(row.retention_mean, 1, 100)}, {text(row.retention_total, 1, 100)}",
        text(row.seconds_per_question, 3),
        str(row.unanswered),
        "failed" if row.failure else accuracy,
        *(text(score, 1) for score in row.parts.values()),
    ]


HEADINGS = (
    "tokens\n/frame",
    "tokens\n/video",
    "retention\nmean, total",
    "seconds\n/question",
    "no\nanswer",
    "accuracy",
)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as tables in Markdown, one per task and metric."""
    lines = []
    for of_table in _tables(rows):
        headings = ["run", *(heading.replace("\n", " ") for heading in HEADINGS), *of_table[0].parts]
        lines += [f"{of_table[0].task}, {of_table[0].metric}:", ""]
        lines += [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
        lines += [f"| {' | '.join(cells(row))} |" for row in of_table]
    return "\n".join(lines)


def _tables(rows: Sequence[Row]) -> list[list[Row]]:
    """Divide rows by task, metric and kinds of questions."""
    tables: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        tables.setdefault((row.task, row.metric, *row.parts), []).append(row)
    return list(tables.values())


def show(rows: Sequence[Row], console: Console, of: str = "last_layer") -> None:
    """Print the rows as one table per task and metric, then every compressor with all its options."""
    for of_table in _tables(rows):
        table = Table(
            title=f"{of_table[0].task}; accuracy is {of_table[0].metric}",
            caption=f"tokens entering the language model, visual + newline; retention ({of}) in %, mean "
            "of the questions and of all tokens; runs of a sweep without reading and encoding; accuracy ± half of "
            "its 95 % interval",
            box=box.SIMPLE,
            collapse_padding=True,
            pad_edge=False,
        )
        table.add_column("run", overflow="fold")
        for name in (*HEADINGS, *(kind.replace(" ", "\n") for kind in of_table[0].parts)):
            table.add_column(name, justify="right", no_wrap=True)
        for row in of_table:
            table.add_row(*cells(row))
        console.print(table)
    for run, row in {row.run: row for row in rows}.items():
        console.print(f"{run}: {row.compressor}", soft_wrap=True, highlight=False)
        if row.failure:
            console.print(f"{run}: {row.failure}.", soft_wrap=True, highlight=False)
