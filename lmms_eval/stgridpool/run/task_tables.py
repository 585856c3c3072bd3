"""The table of a task: its files, columns and values, read without `datasets`, whose import takes seconds.

Only layouts are recognised that leave no doubt: data files named after the split, the files that a README.md lists for
a config, and what `DatasetDict.save_to_disk` writes. Everything else is left to lmms-eval.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = (".parquet", ".json", ".jsonl", ".csv", ".arrow")
BUILDERS = ("csv", "json", "parquet")
"""Values of ``dataset_path`` with which ``dataset_kwargs`` names the files."""


@dataclass(frozen=True)
class Table:
    """Files that hold the rows of a split, in their order.

    Attributes:
        files: At least one.
    """

    files: tuple[Path, ...]

    def columns(self) -> list[str]:
        """Return the names of the columns.

        Raises:
            ValueError: If the file cannot be read.
        """
        return _read(self.files[0], None)

    def values(self, column: str) -> list[Any]:
        """Return the values of a column, row by row.

        Raises:
            ValueError: If a file cannot be read.
        """
        return [value for file in self.files for value in _read(file, column)]


def find_table(settings: Mapping[str, Any], folder: Path) -> Table | None:
    """Find the table of a task; None where lmms-eval alone can tell, as for data on the hub.

    Args:
        settings: The settings of the task.
        folder: Folder of its file, at which relative ``data_files`` start.

    Raises:
        FileNotFoundError: If the folder or file that it names does not exist, or the folder holds no data.
        ValueError: If the list of files in the folder cannot be read.
    """
    place, split = str(settings.get("dataset_path") or ""), str(settings.get("test_split") or "test")
    options = settings.get("dataset_kwargs") or {}
    if place in BUILDERS and isinstance(options, dict):
        if options.keys() - {"data_files"}:  # options of the reader, such as field or delimiter
            return None
        return _named(options.get("data_files"), split, folder)
    if not place.startswith((".", "/", "~")):
        return None
    root = Path(place)
    if not root.is_dir():
        raise FileNotFoundError(f"reads its table from {place}, and there is no such folder in {Path.cwd()}")
    files = _saved(root, split) or _listed(root, settings.get("dataset_name"), split)
    if not files and settings.get("dataset_name") is None:
        data = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES and ".cache" not in path.parts)
        if not data:
            raise FileNotFoundError(f"reads its table from {place}, and that folder holds no parquet, JSON or CSV file")
        files = [path for path in data if split in re.split(r"\W|_", path.relative_to(root).as_posix())]
        files = [path for path in files if path.suffix == files[0].suffix]
    return Table(tuple(files)) if files else None


def _named(given: Any, split: str, folder: Path) -> Table | None:
    """Find the files that ``data_files`` names."""
    names = given.get(split) if isinstance(given, dict) else given
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    if any("://" in name or "*" in name for name in names):
        return None
    paths = [folder / name if (folder / name).is_file() else Path(name) for name in names]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"reads its table from {path}, and there is no such file in {Path.cwd()}")
    return Table(tuple(paths)) if all(path.suffix in SUFFIXES for path in paths) else None


def _saved(root: Path, split: str) -> list[Path]:
    """Find the files of `DatasetDict.save_to_disk`, or of a single `Dataset`."""
    folder = root / split if (root / split / "state.json").is_file() else root
    return sorted(folder.glob("*.arrow")) if (folder / "state.json").is_file() else []


def _listed(root: Path, config: Any, split: str) -> list[Path]:
    """Find the files that the README.md of a data set lists for a config and a split."""
    readme = root / "README.md"
    parts = readme.read_text(encoding="utf-8").split("---", 2) if readme.is_file() else []
    if len(parts) < 3 or parts[0].strip():
        return []
    try:
        configs = (yaml.safe_load(parts[1]) or {}).get("configs") or []
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{readme} begins with a list of files that is not YAML: download it again") from error
    chosen = [one for one in configs if config is None or one.get("config_name") == config][:1]
    listed = [entry for one in chosen for entry in _entries(one.get("data_files"))]
    patterns = [pattern for name, pattern in listed if name == split]
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [path for path in found if path.suffix in SUFFIXES]


def _entries(data_files: Any) -> list[tuple[str, str]]:
    """Return (split, pattern) for the values that ``data_files`` may have; files without a split are for training."""
    if isinstance(data_files, str):
        return [("train", data_files)]
    found = []
    for entry in data_files or []:
        if isinstance(entry, str):
            found.append(("train", entry))
        elif isinstance(entry, dict):
            paths = entry.get("path")
            found += [(str(entry.get("split")), path) for path in ([paths] if isinstance(paths, str) else paths or [])]
    return found


def _read(path: Path, column: str | None) -> list[Any]:
    """Return the names of the columns of a file, or the values of one.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        if path.suffix in (".parquet", ".arrow"):
            return _read_arrow(path, column)
        rows = _rows(path)
        if column is None:
            return list(dict.fromkeys(name for row in rows for name in row))
        return [row.get(column) for row in rows]
    except (OSError, ValueError, AttributeError, KeyError, csv.Error) as error:  # pyarrow's are of the first two
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}; copy or download it again") from error


def _read_arrow(path: Path, column: str | None) -> list[Any]:
    if path.suffix == ".parquet":
        from pyarrow import parquet  # noqa: PLC0415 - a third of a second

        if column is None:
            return list(parquet.read_schema(path).names)
        with parquet.ParquetFile(path) as file:  # `read_table` would import pandas
            return list(file.read(columns=[column])[column].to_pylist())
    from pyarrow import ipc  # noqa: PLC0415 - a third of a second

    with ipc.open_stream(path) as stream:
        return list(stream.schema.names) if column is None else list(stream.read_all()[column].to_pylist())


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON or CSV file, as `datasets` does: a list of objects, or an object per line."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    return [dict(row) for row in rows]
