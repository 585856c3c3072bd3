"""Reports in Markdown and in LaTeX."""

import re
from collections.abc import Sequence

from lmms_eval_stgridpool.report.content import Report, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


def to_markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """Write a report in Markdown.

    Args:
        report: What it says.
        pictures: Paths of its plots, to link to.
    """
    lines = [f"# {report.title}", ""]
    lines += [f"* **Warning**: {warning}" for warning in report.warnings]
    for table in report.tables:
        lines += ["", f"## {table.title}", "", _row(table.columns), "|---|" + "---:|" * (len(table.columns) - 1)]
        lines += [_row(row) for row in table.rows]
        lines += ["", table.note] if table.note else []
    for plot, path in zip(report.plots, pictures, strict=False):
        lines += ["", f"![{plot.caption}]({path})"]
    for number, example in enumerate(report.examples, start=1):
        lines += [
            "",
            f"## Example {number}: {example.task}, {example.video}",
            "",
            "```text",
            example.question,
            "```",
            "",
        ]
        lines += [f"* {run}: {answer} ({example.scores[run]:g})" for run, answer in example.answers.items()]
        lines += [f"* truth: {example.truth}"]
    return "\n".join(lines) + "\n"


def to_latex(report: Report) -> str:
    """Write the tables of a report in LaTeX, for the package booktabs."""
    lines = [f"% {warning}" for warning in report.warnings]
    for table in report.tables:
        lines += [*_latex(table), ""]
    return "\n".join(lines)


def _latex(table: Table) -> list[str]:
    rows = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in (table.columns, *table.rows)]
    first_published = min(table.published, default=len(table.rows))
    body = rows[1 : 1 + first_published]
    if table.published:
        body += [r"\midrule", *rows[1 + first_published :]]
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(' '.join([table.title + '.', table.note]).strip())}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"


def _escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda match: _SPECIAL[match[0]], text)
