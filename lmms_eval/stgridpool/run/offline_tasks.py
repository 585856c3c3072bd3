"""The task files for benchmarks on disk, which ship with the package, and the tasks that commands know."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import lmms_eval.tasks
from lmms_eval.tasks import TaskManager

import lmms_eval_stgridpool
from stgridpool.suggestion import suggestion

MODEL = "llava_video"
"""The name by which tasks choose the wording of questions."""
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


def stock_names() -> set[str]:
    """Return the names of lmms-eval's own tasks, groups and tags, and a few other words of its task files.

    Its index takes many seconds, as it loads every file; here only lines that may name a task are read.
    """
    folder = Path(lmms_eval.tasks.__file__).parent
    return {name for path in folder.rglob("*.yaml") for name in _NAME.findall(path.read_text(encoding="utf-8"))}
