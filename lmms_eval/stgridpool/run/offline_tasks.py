"""The task files for benchmarks on disk, which ship with the package, and the tasks that commands know."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import lmms_eval.tasks
from lmms_eval.tasks import TaskManager

import lmms_eval_stgridpool
from lmms_eval_stgridpool.questions.video_table import is_table, read_table, table_file
from stgridpool.suggestion import suggestion

MODEL = "llava_video"
"""The name by which tasks choose the wording of questions."""
OWN_TABLE = "my_videos"
"""The task that reads a user's own table."""
_NAME = re.compile(r"""^\s*(?:(?:task|group|tag)\s*:|-)\s*["']?([\w.-]+)["']?\s*(?:#.*)?$""", re.MULTILINE)


def offline_tasks() -> Path:
    """Return the folder of the task files: a part of the installed package, or `custom_tasks` in a checkout."""
    package = Path(lmms_eval_stgridpool.__file__).resolve().parent
    installed = package / "custom_tasks"
    return installed if installed.is_dir() else package.parent.parent / "custom_tasks"


def task_manager(names: Iterable[str], include: Sequence[Path] = ()) -> TaskManager:
    """Index the tasks that `names` need: ours and those of `include` alone if they suffice, as lmms-eval has thousands.

    Args:
        names: Names of tasks.
        include: Folders of further task files.

    Raises:
        ValueError: If there is no such task; the message suggests the nearest one.
    """
    folders = [str(folder) for folder in (offline_tasks(), *include)]
    manager = TaskManager(include_path=folders, include_defaults=False, model_name=MODEL)
    ours = manager.all_tasks
    others = [name for name in names if name not in ours]
    if not others:
        return manager
    known = [*ours, *sorted(stock_names())]
    for name in others:
        if name not in known:
            message, _, _ = suggestion(name, known).partition(" Available: ")
            raise ValueError(
                f"there is no task {name!r}{message} Tasks on disk: {', '.join(ours)}; others: "
                "python -m lmms_eval --tasks list"
            )
    return TaskManager(include_path=folders, model_name=MODEL)


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
        found.append(f"{OWN_TABLE}_{re.sub(r'[^A-Za-z0-9]+', '_', table.stem)}")
        folders.append(runs / ".tasks" / found[-1])
        write_table_task(folders[-1], found[-1], table)
    return found, folders


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


def stock_names() -> set[str]:
    """Return the names of lmms-eval's own tasks, groups and tags, and a few other words of its task files.

    Its index takes many seconds, as it loads every file; here only lines that may name a task are read.
    """
    folder = Path(lmms_eval.tasks.__file__).parent
    return {name for path in folder.rglob("*.yaml") for name in _NAME.findall(path.read_text(encoding="utf-8"))}
