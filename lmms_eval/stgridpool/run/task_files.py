"""Task files, read without lmms-eval, whose import takes many seconds: names, groups, and the settings of a task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from stgridpool.suggestion import suggestion

_STOCK_NAME = re.compile(
    r"""^\s*(?:["']?(?:task|group|tag)["']?\s*:|-)\s*["']?([\w.+-]+)["']?\s*(?:#.*)?$""", re.MULTILINE
)
_IS_FILE = re.compile(r"""^["']?(?:task|group)["']?\s*:\s*["']?([\w.+-]+)["']?\s*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True)
class TaskFile:
    """A task or a group of tasks.

    Attributes:
        name: Its name.
        path: The file.
        settings: What the file says, included files too; functions are the text of their names.
    """

    name: str
    path: Path
    settings: Mapping[str, Any]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tasks of a group; a task has none."""
        listed = self.settings.get("task")
        return tuple(part for part in listed if isinstance(part, str)) if isinstance(listed, list) else ()


class _Loader(getattr(yaml, "CFullLoader", yaml.FullLoader)):  # type: ignore[misc] # written in C, where it is there
    """Reads YAML with lmms-eval's tag for functions, which stay text."""


def _name_of_function(loader: Any, node: Any) -> str:  # noqa: ARG001 - the loader calls it so
    return str(node.value)


_Loader.add_constructor("!function", _name_of_function)


def offline_tasks() -> Path:
    """Return the folder of the task files: a part of the installed package, or `custom_tasks` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "custom_tasks"
    return installed if installed.is_dir() else package.parent.parent / "custom_tasks"


def read_task_file(path: Path) -> dict[str, Any]:
    """Read a task file and the files that it includes; its own settings take precedence.

    Raises:
        ValueError: If a file cannot be read, or does not hold settings.
    """
    try:
        own = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as a task file: {' '.join(str(error).split())}") from error
    if not isinstance(own, dict):
        raise ValueError(
            f"{path} must hold settings such as task: NAME, got {type(own).__name__}: lmms-eval reads every .yaml file "
            "there and fails on this one, so move it, or let its name end in .yml"
        )
    given = own.pop("include", [])
    settings: dict[str, Any] = {}
    for name in reversed([given] if isinstance(given, str) else given):
        settings |= read_task_file(Path(name) if Path(name).is_file() else path.parent / name)
    return settings | own


def index_of(folder: Path) -> dict[str, TaskFile]:
    """Index the task files below a folder by name; a tag is the first of its tasks.

    Raises:
        ValueError: If the folder does not exist, or a file cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"--include_path {folder} is not a folder in {Path.cwd()}: name the folder of task files")
    found: dict[str, TaskFile] = {}
    for path in sorted(folder.rglob("*.yaml")):
        settings = read_task_file(path)
        group = settings.get("group") if isinstance(settings.get("task"), list) else None
        name = group or settings.get("task")
        if isinstance(name, str):
            found[name] = TaskFile(name, path, settings)
    for one in list(found.values()):
        tags = [one.settings.get("tag") or [], one.settings.get("group") or []]
        for tag in (tag for given in tags for tag in ([given] if isinstance(given, str) else given)):
            found.setdefault(tag, one)
    return found


def find_tasks(names: Iterable[str], include: Sequence[Path] = ()) -> list[TaskFile]:
    """Return the task files that names stand for, groups as their tasks.

    Args:
        names: Names of tasks and groups, ours, those below `include`, or lmms-eval's own; and paths of task files.
        include: Folders of further task files, which take precedence.

    Raises:
        ValueError: If there is no such task; the message suggests the nearest one.
    """
    ours: dict[str, TaskFile] = {}
    for folder in (offline_tasks(), *include):
        ours |= index_of(folder)
    stock: dict[str, Path] | None = None
    found: list[TaskFile] = []
    for name in names:
        if name in ours:
            found += _tasks_of(ours[name], ours)
        elif Path(name).is_file():
            found.append(TaskFile(name, Path(name), read_task_file(Path(name))))
        elif "*" not in name and not Path(name).is_dir():  # lmms-eval takes patterns and folders, too
            stock = stock_files() if stock is None else stock
            if name not in stock and name not in stock_names():
                raise ValueError(_no_task(name, ours, stock))
            found += [TaskFile(name, stock[name], read_task_file(stock[name]))] if name in stock else []
    return found


def folder_to_include(names: Sequence[str], include: Path | None) -> Path:
    """Return the folder for lmms-eval's option ``--include_path``, which takes only one.

    Args:
        names: Names of tasks.
        include: Folder that the user names; None for none.

    Raises:
        ValueError: If some of the tasks are only in the user's folder and others only in ours.
    """
    ours = offline_tasks()
    if include is None:
        return ours
    theirs, own = index_of(include), index_of(ours)
    lacking = [name for name in names if name in own and name not in theirs]
    if lacking and any(name in theirs for name in names):
        raise ValueError(
            f"{lacking[0]} ships with stgridpool and is not in --include_path {include}, and lmms-eval reads one "
            "folder only: start a run for each"
        )
    return ours if lacking else include


def stock_files() -> dict[str, Path]:
    """Return the files of lmms-eval's own tasks and groups by name. Only lines that name them are read, for speed."""
    paths = _stock_paths("*.yaml")
    return {name: path for path in paths for name in _IS_FILE.findall(path.read_text(encoding="utf-8"))}


def stock_names() -> set[str]:
    """Return the names of lmms-eval's own tasks, groups and tags, and a few other words of its task files.

    Its index takes many seconds, as it loads every file; here only lines that may name a task are read,
    also those of templates such as _default_template_yaml.
    """
    return {name for path in _stock_paths("*yaml") for name in _STOCK_NAME.findall(path.read_text(encoding="utf-8"))}


def _stock_paths(pattern: str) -> Iterator[Path]:
    """List those files of lmms-eval's own tasks whose names fit a pattern, without importing it."""
    package = find_spec("lmms_eval")
    for place in (package and package.submodule_search_locations) or []:
        yield from Path(place, "tasks").rglob(pattern)


def _tasks_of(task: TaskFile, index: Mapping[str, TaskFile]) -> list[TaskFile]:
    parts = [index[name] for name in task.parts if name in index and index[name] is not task]
    return [one for part in parts for one in _tasks_of(part, index)] if task.parts else [task]


def _no_task(name: str, ours: Iterable[str], stock: Iterable[str]) -> str:
    names = list(ours)
    message, _, _ = suggestion(name, [*names, *sorted(stock)]).partition(" Available: ")
    return (
        f"there is no task {name!r}{message} Tasks on disk: {', '.join(names)}; others: "
        "python -m lmms_eval --tasks list"
    )
