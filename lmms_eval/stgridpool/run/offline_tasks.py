"""lmms-eval's index of the tasks that a command needs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lmms_eval.tasks import TaskManager

from lmms_eval_stgridpool.run.task_files import find_tasks, offline_tasks

MODEL = "llava_video"
"""The model whose runs ask as most of these commands do."""


def task_manager(names: Iterable[str], include: Sequence[Path] = (), model: str = MODEL) -> TaskManager:
    """Index the tasks that `names` need: ours and those of `include` alone if they suffice, as lmms-eval has thousands.

    Args:
        names: Names of tasks.
        include: Folders of further task files.
        model: The name by which tasks choose the wording of questions.

    Raises:
        ValueError: If there is no such task; the message suggests the nearest one.
    """
    wanted = list(names)
    find_tasks(wanted, include)
    folders = [str(folder) for folder in (offline_tasks(), *include)]
    manager = TaskManager(include_path=folders, include_defaults=False, model_name=model)
    return manager if set(wanted) <= set(manager.all_tasks) else TaskManager(include_path=folders, model_name=model)
