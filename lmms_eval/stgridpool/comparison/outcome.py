"""The outcome of a sweep: the rows of its table, and what goes with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.comparison.rows import SHARED_STAGES, Row
from stgridpool.published import published_for


@dataclass(frozen=True)
class Outcome:
    """The result of a sweep.

    Attributes:
        rows: A row for each compressor and task; none if no compressor could meet its budget.
        remarks: Why compressors were left out, or miss the retention.
        shared_seconds: Seconds per question of reading and encoding, over all runs.
        published: Accuracies that papers report for the same methods, retentions, tasks and checkpoint.
        is_first: Whether this is rank 0, which alone has rows and writes files.
        choices: The compressors with the options that they were evaluated with.
        kv_bytes_per_token: Bytes of keys and values that a position takes in all layers of the language model.
        peak_bytes: See `Swept`, by the name of the run.
    """

    rows: tuple[Row, ...]
    remarks: tuple[str, ...]
    shared_seconds: float
    published: tuple[str, ...] = ()
    is_first: bool = True
    choices: tuple[Choice, ...] = ()
    kv_bytes_per_token: float = 0.0
    peak_bytes: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a run failed."""
        return any(row.failure for row in self.rows)


def published_beside(rows: Sequence[Row], choices: Sequence[Choice], checkpoint: str) -> tuple[str, ...]:
    """Return what papers report for the methods, retentions and tasks of `rows` and a checkpoint, one line each.

    Args:
        rows: Of the table.
        choices: The compressors.
        checkpoint: Its folder or name.
    """
    runs = {choice.folder: choice for choice in choices}
    found = [published_for(runs[row.run].name, checkpoint, row.task, runs[row.run].retention) for row in rows]
    return tuple(dict.fromkeys(str(one) for of_row in found for one in of_row))


def shared_seconds(records: Sequence[Mapping[str, Any] | None]) -> float:
    """Return the seconds per question of reading and encoding, which is timed in the run that needs a video first.

    Methods that change frames read and encode videos for themselves; that counts as well.

    Args:
        records: The record of each run of the sweep; None for a run without one.
    """
    known = [record for record in records if record is not None]
    spent: float = sum(record["seconds"].get(stage, 0.0) for record in known for stage in SHARED_STAGES)
    questions = max((record["requests"] for record in known), default=0)
    return spent / questions if questions else 0.0
