"""Checks of a task's table and videos before a run; nothing heavy is imported."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_eval_stgridpool.questions.local_video import local_video
from lmms_eval_stgridpool.questions.video_table import TableQuestion, read_table, table_file
from lmms_eval_stgridpool.run.task_files import TaskFile
from lmms_eval_stgridpool.run.task_tables import Table, find_table
from lmms_eval_stgridpool.run.too_many import are_too_many
from stgridpool.options import whole_number

MOST_ROWS = 10**9
"""Largest number of questions that an option may name."""
_FINDS_VIDEO = "lmms_eval_stgridpool.tasks.local.doc_to_visual"


@dataclass(frozen=True)
class Asked:
    """Which rows of a table a run asks about.

    lmms-eval itself would take 2.5 for 2 and 0 for all, and crash on NaN and infinity once everything is loaded.

    Attributes:
        limit: As lmms-eval's ``--limit``: a whole number of rows from 1 to `MOST_ROWS`, or a share of them above 0 and
            below 1, rounded up; None and -1 for all.
        offset: Rows that are left out at the beginning, 0 to `MOST_ROWS`.

    Raises:
        ValueError: If one of them is something else.
    """

    limit: float | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        """Check both."""
        limit = self.limit
        is_count = limit is not None and 1 <= limit <= MOST_ROWS and limit == int(limit)
        if limit is not None and limit != -1 and not is_count and not 0 < limit < 1:
            raise ValueError(
                f"--limit must be a whole number of questions from 1 to {MOST_ROWS}, a share of them above 0 and below "
                f"1, or -1 for all, got {limit:g}"
            )
        whole_number("--offset", self.offset, 0, MOST_ROWS)

    @property
    def is_share(self) -> bool:
        """Whether the limit is a share of the rows."""
        return self.limit is not None and 0 < self.limit < 1

    def of(self, rows: list[Any]) -> list[Any]:
        """Return the rows that are asked about."""
        if self.limit is None or self.limit < 0:
            return rows[self.offset :]
        count = math.ceil(len(rows) * self.limit) if self.is_share else int(self.limit)
        return rows[self.offset : self.offset + count]


ALL = Asked()
"""Every row."""


def check_table(task: TaskFile) -> Table | None:
    """Check that the table of a task is there, with the columns that its file lists in ``metadata``.

    Args:
        task: The task.

    Returns:
        The table; None where only lmms-eval can read it.

    Raises:
        ValueError: If it is not there, cannot be read or lacks a column; the message says what to do.
    """
    metadata = _metadata(task)
    if metadata.get("own_table"):
        _own_questions(task)
        return None
    try:
        table = find_table(task.settings, task.path.parent)
    except FileNotFoundError as error:
        raise ValueError(f"{task.name} {error}: {_download(task, metadata)}") from error
    if table is None:
        return None
    found, needed = table.columns(), metadata.get("columns") or []
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(
            f"{task.name} needs a column {missing[0]!r}, and {table.files[0]} has {', '.join(map(str, found))}: "
            "rename or add it, or download the table again"
        )
    return table


def check_videos(
    tasks: Sequence[tuple[TaskFile, Table | None]], asked: Asked, max_failed: float | None
) -> tuple[str, ...]:
    """Check that the videos of tasks with videos on disk are there.

    Args:
        tasks: The tasks of the run, each with the result of `check_table`.
        asked: Which rows of each table are asked about.
        max_failed: Largest fraction of the run's questions that may stay unanswered, 0 to 1; None to only warn.

    Returns:
        A warning for each task some of whose videos are missing.

    Raises:
        ValueError: If too many are missing for the run to succeed, or a share of the rows of several tasks is asked
            about: lmms-eval 0.7.3 asks as many of each task as that share of the first.
    """
    if asked.is_share and len(tasks) > 1:
        raise ValueError(
            f"--limit {asked.limit:g} is a share of the first of {len(tasks)} tasks, and lmms-eval asks as many "
            "questions of each of the others: give a whole number, or start a run for each task"
        )
    paths = {task.name: _paths(task, table) for task, table in tasks}
    known = {name: asked.of(of_task) for name, of_task in paths.items() if of_task is not None}
    return check_paths(known, max_failed if len(known) == len(tasks) else None)


def check_paths(videos: Mapping[str, Sequence[str]], max_failed: float | None) -> tuple[str, ...]:
    """Check that videos are there.

    Args:
        videos: The path of the video of each question, by task.
        max_failed: See `check_videos`.

    Returns:
        See `check_videos`.

    Raises:
        ValueError: See `check_videos`.
    """
    failed, texts = 0, dict[str, str]()
    for name, paths in videos.items():
        missing = {path for path in set(paths) if not Path(path).exists()}
        if missing:
            failed += sum(path in missing for path in paths)
            texts[name] = _missing_text(name, paths, missing)
    total = sum(map(len, videos.values()))
    if texts and max_failed is not None and are_too_many(failed, total, max_failed):
        first, *others = texts
        raise ValueError(texts[first] + (f"; videos of {', '.join(others)} are missing, too" if others else ""))
    return tuple(texts.values())


def _missing_text(name: str, paths: Sequence[str], missing: Set[str]) -> str:
    first = Path(next(path for path in paths if path in missing))
    return (
        f"{name}: {len(missing)} of {len(set(paths))} videos are missing, such as {first}; "
        f"{sum(path in missing for path in paths)} of {len(paths)} questions are about them: put the videos there, or "
        f"unpack the archives in {first.parent}"
    )


def _paths(task: TaskFile, table: Table | None) -> list[str] | None:
    """Return the path of the video of each question; None where only lmms-eval can tell."""
    if _metadata(task).get("own_table"):
        return [question.video for question in _own_questions(task)]
    settings = _video_settings(task)
    if settings is None or table is None or task.settings.get("process_docs") is not None:
        return None
    column = settings["video_field"]
    if column not in table.columns():
        raise ValueError(f"{task.name} needs a column {column!r}, and {table.files[0]} has no such column: add it")
    names = [str(name) for name in table.values(column)]
    paths = {name: str(local_video(settings["video_dir"], name)) for name in set(names)}
    return [paths[name] for name in names]


def _own_questions(task: TaskFile) -> list[TableQuestion]:
    """Read a user's own table.

    Raises:
        ValueError: If it is not there, or not as it must be.
    """
    try:
        return read_table(table_file(str(task.settings.get("dataset_path"))))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{task.name}: {error}: mend the table, or name it instead of the task: stgridpool eval TABLE CHECKPOINT"
        ) from error


def _metadata(task: TaskFile) -> Mapping[str, Any]:
    found = task.settings.get("metadata")
    return found if isinstance(found, dict) else {}


def _video_settings(task: TaskFile) -> Mapping[str, Any] | None:
    """Return the folder and the column of the videos, where our function finds them."""
    given = (task.settings.get("lmms_eval_specific_kwargs") or {}).get("default")
    is_ours = task.settings.get("doc_to_visual") == _FINDS_VIDEO
    return given if is_ours and isinstance(given, dict) and {"video_dir", "video_field"} <= given.keys() else None


def _download(task: TaskFile, metadata: Mapping[str, Any]) -> str:
    """Say where the data of a task comes from."""
    hub = metadata.get("hub")
    if hub is None:
        return "put its data there, or start in the folder that holds data/"
    folder = shlex.quote("/".join(Path(str(task.settings["dataset_path"])).parts[:2]))
    return (
        f"start in the folder that holds data/, or hf download {hub} --repo-type dataset --local-dir {folder}, and "
        "unpack its archives there"
    )
