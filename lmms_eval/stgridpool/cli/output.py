"""What commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_OF_FILES = 160
"""Least width of a table that goes to a file or another program, in characters."""


@contextmanager
def logs_on_stderr() -> Iterator[None]:
    """Have libraries that are imported in the block log to standard error, as standard output is for results.

    lmms-eval's evaluator logs to what is standard output when it is imported.
    """
    with redirect_stdout(sys.stderr):
        yield


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
"""The option ``--json`` of a command."""


def print_json(value: Any) -> None:
    """Print a value, in which dataclasses become objects, as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table; None becomes a blank cell. Cells wrap at the width of the terminal, the first column never."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_OF_FILES)
    console.print(table)


def _plain(value: Any) -> Any:
    """Convert a value that JSON does not know.

    Raises:
        TypeError: If it is neither a dataclass, a collection nor a path.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)
