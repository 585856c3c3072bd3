"""Task files for users' own tables."""

import json
import os
import re
from hashlib import sha256
from pathlib import Path

from lmms_eval_stgridpool.questions.video_table import is_table, read_table, table_file
from lmms_eval_stgridpool.run.task_files import offline_tasks

OWN_TABLE = "my_videos"
"""The task that reads a user's own table."""
DIGITS = 6
"""Digits of the digest in the name of a table's task."""


def with_tables(names: str, runs: Path = Path("logs") / "runs") -> tuple[list[str], list[Path]]:
    """Replace paths of tables by names of tasks that ask their questions.

    Args:
        names: Names of tasks and paths of tables (see `questions.video_table`), separated by commas.
        runs: The folder of all runs; the task files are written below it.

    Returns:
        Names of tasks, and the folders of their files besides `offline_tasks`.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If a table is not as it must be.
    """
    found, folders = [], []
    for name in names.split(","):
        if not is_table(name):
            found.append(name)
            continue
        table = table_file(name)
        read_table(table)
        found.append(_name(table))
        folders.append(runs / ".tasks" / found[-1])
        write_table_task(folders[-1], found[-1], table)
    return found, folders


def _name(table: Path) -> str:
    """Name the task of a table by its file and a digest of its path, as tables in other folders may have its name."""
    digest = sha256(str(table.resolve()).encode()).hexdigest()[:DIGITS]
    return f"{OWN_TABLE}_{re.sub(r'[^A-Za-z0-9]+', '_', table.stem)}_{digest}"


def write_table_task(folder: Path, name: str, table: Path) -> None:
    """Write the file of a task that asks the questions of a table; any number of ranks may do this at once.

    Args:
        folder: The folder for the file alone.
        name: Name of the task.
        table: The table.
    """
    text = {
        "include": str(offline_tasks() / f"{OWN_TABLE}.yaml"),
        "task": name,
        "dataset_path": str(table.resolve()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.{os.getpid()}.tmp"
    unfinished.write_text(json.dumps(text, indent=2), encoding="utf-8")  # JSON is YAML
    unfinished.replace(folder / f"{name}.yaml")
