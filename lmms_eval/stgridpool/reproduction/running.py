"""The runs of a table: their commands, and what came of them."""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmms_eval_stgridpool.comparison.finished_run import load_run
from lmms_eval_stgridpool.comparison.rows import Row, rows_of
from lmms_eval_stgridpool.kept.identity import answer_key
from lmms_eval_stgridpool.reproduction.tables import Cell
from lmms_eval_stgridpool.run.model_args import check_passable

Start = Callable[[Sequence[str], Path | None], int]
"""Runs a command of `stgridpool` in a folder, and returns its exit status."""
DIGITS = 8
"""Digits of the digest in a folder's name, which tells runs with other settings apart."""
TOLERANCE = 1.0
"""Difference from the published accuracy that is not marked if ours has no interval, in percentage points."""


@dataclass(frozen=True)
class Settings:
    """What the user decides about all runs of a table.

    Attributes:
        output: Folder of the runs; each has a folder of its own there.
        checkpoint: Checkpoint in place of the published one; None for that one.
        data: Folder in which the runs work, where data is; None for the working directory.
        arguments: Further arguments of the model, KEY=VALUE; they replace those of the table.
        processes: Number of processes of a run; None for the default.
        lmms_eval: Further options of lmms-eval; empty for none.
    """

    output: Path
    checkpoint: str | None = None
    data: Path | None = None
    arguments: tuple[str, ...] = ()
    processes: int | None = None
    lmms_eval: str = ""

    def command(self, cell: Cell) -> list[str]:
        """Return the command that makes the run of a cell; the folder of its results is the last word.

        Raises:
            ValueError: If a path cannot be passed to lmms-eval.
        """
        checkpoint = self.checkpoint or cell.checkpoint
        if Path(checkpoint).exists():
            checkpoint = str(Path(checkpoint).resolve())
        check_passable("--checkpoint", checkpoint)
        check_passable("--output", str(self.output.resolve()))
        replaced = {word.partition("=")[0] for word in self.arguments}
        own = [word for word in cell.words() if word.partition("=")[0] not in replaced]
        words = ["eval", cell.task, checkpoint, *own, *self.arguments, "--compressor", cell.compressor]
        words += ["--processes", str(self.processes)] if self.processes is not None else []
        words += ["--lmms-eval", self.lmms_eval] if self.lmms_eval else []
        name = f"{cell.row}-{cell.benchmark}".replace("%", "percent").replace(" ", "_").replace("/", "-")
        folder = self.output / f"{name}-{answer_key({'words': words})[:DIGITS]}"
        return [*words, "--output", str(folder.resolve())]


@dataclass(frozen=True)
class Outcome:
    """A cell, and our number.

    Attributes:
        cell: The cell.
        folder: Where the run is.
        ours: Our accuracy in %; None if there is none.
        interval: Half of its 95 % interval, in percentage points; None if unknown.
        problem: Why there is no number; empty if there is one.
        unanswered: Number of questions that could not be answered.
    """

    cell: Cell
    folder: str
    ours: float | None = None
    interval: float | None = None
    problem: str = ""
    unanswered: int = 0

    @property
    def differs(self) -> bool:
        """Whether the published number is outside of the interval of ours."""
        if self.ours is None or self.cell.published is None:
            return False
        return abs(self.ours - self.cell.published) > (TOLERANCE if self.interval is None else self.interval)

    def __str__(self) -> str:
        """Return our number, its interval and the published number; a mark if they differ."""
        published = "?" if self.cell.published is None else f"{self.cell.published:.1f}"
        if self.ours is None:
            return f"{self.problem or '-'} / {published}"
        interval = "" if self.interval is None else f" ± {self.interval:.1f}"
        interval += f" ({self.unanswered} unanswered)" if self.unanswered else ""
        return f"{self.ours:.1f}{interval} / {published}{' !' if self.differs else ''}"


def run_all(cells: Sequence[Cell], settings: Settings, start: Start, report: Callable[[str], None]) -> list[Outcome]:
    """Make the runs of a table one after the other; those that are finished already are not repeated.

    A run that fails does not keep the others from running.

    Args:
        cells: The cells.
        settings: What the user decides.
        start: Starts a run.
        report: Gets a line about each run.
    """
    outcomes = []
    for number, cell in enumerate(cells, start=1):
        command = settings.command(cell)
        beginning = f"{number} of {len(cells)}: {cell.row}, {cell.benchmark}"
        found = outcome(cell, command[-1])
        if found.ours is not None:
            report(f"{beginning}: finished before, in {found.folder}")
        else:
            report(beginning)
            status = start(command, settings.data)
            found = outcome(cell, command[-1])
            if status and not found.problem.startswith("failed"):
                found = Outcome(cell, command[-1], problem="failed")
        outcomes.append(found)
    return outcomes


def start_run(words: Sequence[str], folder: Path | None) -> int:
    """Run a command of `stgridpool` in a folder, with its output on standard error; see `Start`."""
    command = [sys.executable, "-m", "lmms_eval_stgridpool.cli", *words]
    return subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False).returncode


def outcome(cell: Cell, folder: str) -> Outcome:
    """Read the newest run of a folder."""
    try:
        run = load_run(Path(folder))
    except FileNotFoundError:
        return Outcome(cell, folder)
    if run.record.get("run_failed"):
        return Outcome(cell, folder, problem="failed")
    try:
        rows = rows_of(run)
    except ValueError:  # EgoSchema's server has the score
        return Outcome(cell, folder, problem="no score")
    return Outcome(cell, folder, *accuracy(rows), unanswered=sum(row.unanswered for row in rows))


def accuracy(rows: Sequence[Row]) -> tuple[float, float | None]:
    """Return the accuracy over the questions of all tasks of a run in %, and half of its 95 % interval.

    Tasks are parts of one benchmark, such as MVBench's, whose draws are independent.
    """
    total = sum(row.questions for row in rows)
    unit = 1 if any(row.score > 1 for row in rows) else 100
    mean = unit * sum(row.questions * row.score for row in rows) / total
    squares = [(row.questions * row.interval) ** 2 for row in rows if row.interval is not None]
    return mean, unit * math.sqrt(sum(squares)) / total if len(squares) == len(rows) else None
