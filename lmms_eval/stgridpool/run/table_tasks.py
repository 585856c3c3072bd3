"""Task files for users' own tables."""

import json
import os
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from lmms_eval_stgridpool.questions.video_table import is_table, read_table, table_file
from lmms_eval_stgridpool.run.task_files import offline_tasks

OWN_TABLE = "my_videos"
"""The task that reads a user's own table."""
DIGITS = 6
"""Digits of the digest in names."""


def with_tables(names: str, runs: Path = Path("logs") / "runs") -> tuple[list[str], list[Path]]:
    """Replace paths of tables by names of tasks that ask their questions.

    Args:
        names: Names of tasks and paths of tables (see `questions.video_table`), separated by commas.
        runs: The folder of all runs; the task files are written below it.

    Returns:
        Names of tasks, and the folders of their files besides `offline_tasks`.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If a table is not as it must be, or has a comma in its path.
    """
    found, folders = task_names(names), []
    for given, name in zip(names.split(","), found, strict=True):
        if is_table(given):
            table = table_file(given)
            read_table(table)
            folders.append(runs / ".tasks" / name)
            write_table_task(folders[-1], name, table)
    return found, folders


def task_names(names: str) -> list[str]:
    """Return names of tasks, those of tables by their files and a digest of their paths: other folders may have them.

    Args:
        names: See `with_tables`.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If a table has a comma in its path.
    """
    if "," in names and is_table(names) and Path(names).is_file():
        raise ValueError(f"a table must not have a comma in its path, got {names}: rename it, or name a link to it")
    return [_name(table_file(name)) if is_table(name) else name for name in names.split(",")]


def _name(table: Path) -> str:
    return f"{OWN_TABLE}_{re.sub(r'[^A-Za-z0-9]+', '_', table.stem)}_{paths_digest([table])}"


def paths_digest(paths: Iterable[Path]) -> str:
    """Return a digest of the absolute paths of files, to tell files of the same name apart."""
    text = "\n".join(str(path.resolve()) for path in paths)
    return sha256(text.encode()).hexdigest()[:DIGITS]


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
