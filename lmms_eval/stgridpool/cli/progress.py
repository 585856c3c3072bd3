"""Progress bars with the time left, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show bars while the block runs; yields a function that starts one.

    Its arguments are a title and a total, and what it returns advances the bar by a number.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def start(title: str, total: int) -> Callable[[int], None]:
            bar = progress.add_task(title, total=total)
            return lambda amount: progress.advance(bar, amount)

        yield start
