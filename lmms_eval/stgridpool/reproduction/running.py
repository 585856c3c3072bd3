"""The runs of a table: their commands and their outcomes."""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmms_eval_stgridpool.comparison.finished_run import load_run
from lmms_eval_stgridpool.comparison.rows import NoScoreError, Row, rows_of
from lmms_eval_stgridpool.comparison.units import PERCENT
from lmms_eval_stgridpool.kept.identity import answer_key
from lmms_eval_stgridpool.reproduction.tables import Cell
from lmms_eval_stgridpool.run.model_args import check_passable

Start = Callable[[Sequence[str], Path | None], int]
"""Runs a command of `stgridpool` in a folder, and returns its exit status."""
DIGITS = 8
"""Digits of the digest in a folder's name, which tells runs with other settings apart."""
FAILED = "failed"
NO_SCORE = "no score"
"""Problems of an outcome: a run failed, or has no score as a server has it."""
SUBMITTED = "answers_in_submission"
"""Metric of tasks that write a file for EgoSchema's server: the number of answers in the file, which is no score."""
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

        The number of processes does not change answers, so a run resumes in its folder with another one.

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
        words += ["--lmms-eval", self.lmms_eval] if self.lmms_eval else []
        decides = {"words": words, "data": "" if self.data is None else str(self.data.resolve())}
        name = f"{cell.row}-{cell.benchmark}".replace("%", "percent").replace(" ", "_").replace("/", "-")
        folder = self.output / f"{name}-{answer_key(decides)[:DIGITS]}"
        processes = ["--processes", str(self.processes)] if self.processes is not None else []
        return [*words, *processes, "--output", str(folder.resolve())]


@dataclass(frozen=True)
class Outcome:
    """A cell, and our number.

    Attributes:
        cell: The cell.
        folder: Where the run is.
        ours: Our accuracy in %; None if there is none.
        interval: Half of its 95 % interval, in percentage points; None if unknown.
        problem: Why there is no number; empty if there is one, or no finished run.
        unanswered: Number of questions that could not be answered.
    """

    cell: Cell
    folder: str
    ours: float | None = None
    interval: float | None = None
    problem: str = ""
    unanswered: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether the run has been made and did not fail."""
        return self.ours is not None or self.problem == NO_SCORE

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
        found = _read(cell, command[-1], beginning, report)
        if found.is_finished:
            report(f"{beginning}: finished before, in {found.folder}")
        else:
            report(beginning)
            status = start(command, settings.data)
            found = _read(cell, command[-1], beginning, report)
            if status or not found.is_finished:
                found = Outcome(cell, command[-1], problem=FAILED)
        outcomes.append(found)
    return outcomes


def _read(cell: Cell, folder: str, beginning: str, report: Callable[[str], None]) -> Outcome:
    """Read the newest run of a folder; one that cannot be read is reported, and has failed."""
    try:
        return outcome(cell, folder)
    except ValueError as error:
        report(f"{beginning}: the run in {folder} cannot be read: {error}")
        return Outcome(cell, folder, problem=FAILED)


def start_run(words: Sequence[str], folder: Path | None) -> int:
    """Run a command of `stgridpool` in a folder, with its output on standard error; see `Start`.

    Ctrl-C reaches the command, too; it gets the time to end its processes.
    """
    command = [sys.executable, "-m", "lmms_eval_stgridpool.cli", *words]
    run = subprocess.Popen(command, cwd=folder, stdout=sys.stderr)
    try:
        return run.wait()
    finally:
        run.wait()


def outcome(cell: Cell, folder: str) -> Outcome:
    """Read the newest run of a folder.

    Raises:
        ValueError: If its files cannot be read, no question was answered, or the unit of its score is unknown.
    """
    try:
        run = load_run(Path(folder))
    except FileNotFoundError:
        return Outcome(cell, folder)
    if run.record.get("run_failed"):
        return Outcome(cell, folder, problem=FAILED)
    try:
        rows = rows_of(run)
    except NoScoreError:
        return Outcome(cell, folder, problem=NO_SCORE)
    if any(row.metric == SUBMITTED for row in rows):
        return Outcome(cell, folder, problem=NO_SCORE)
    return Outcome(cell, folder, *accuracy(rows), unanswered=sum(row.unanswered for row in rows))


def accuracy(rows: Sequence[Row]) -> tuple[float, float | None]:
    """Return the accuracy over the questions of all tasks of a run in %, and half of its 95 % interval.

    Tasks are parts of one benchmark, such as MVBench's, whose draws are independent.

    Raises:
        ValueError: If nobody can tell whether a score is in %.
    """
    total = sum(row.questions for row in rows)
    to_percent = [_factor(row) for row in rows]
    mean = sum(row.questions * factor * row.score for row, factor in zip(rows, to_percent, strict=True)) / total
    squares = [
        (row.questions * factor * row.interval) ** 2
        for row, factor in zip(rows, to_percent, strict=True)
        if row.interval is not None
    ]
    return mean, math.sqrt(sum(squares)) / total if len(squares) == len(rows) else None


def _factor(row: Row) -> float:
    """Return what makes a score one in %; any factor does for 0."""
    if row.unit is None and row.score:
        raise ValueError(f"{row.metric} of {row.task} is {row.score}, and nobody can tell whether that is in %")
    return PERCENT / (row.unit or PERCENT)
