"""Published tables as cells: what to run for each, and the number that was published."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from stgridpool import COMPRESSORS
from stgridpool.published import Published, benchmark_tasks, published
from stgridpool.suggestion import suggestion

WHOLE = "all tokens"
"""Name of the row without compression."""
_FILE = Path(__file__).with_name("tables.toml")
_ENDINGS_ON_DISK = ("_local", "_submission")


@dataclass(frozen=True)
class Cell:
    """One number of a table, and the run that it needs.

    Attributes:
        checkpoint: Hub name.
        row: Name of the row: the method, its retention or its preset.
        benchmark: The column.
        task: Name of the task.
        compressor: The compressor, as arguments name it.
        options: Its options.
        arguments: The other arguments of the model.
        published: The published accuracy in %; None if we do not know it.
    """

    checkpoint: str
    row: str
    benchmark: str
    task: str
    compressor: str
    options: Mapping[str, Any]
    arguments: Mapping[str, Any]
    published: float | None

    def words(self) -> list[str]:
        """Return the arguments of the model, without checkpoint and compressor, as words of a command line."""
        options = json.dumps(self.options, separators=(",", ":"))
        given = [f"{name}={value}" for name, value in self.arguments.items()]
        return [*given, *([f"compressor_args={options}"] if self.options else [])]


def table_names() -> list[str]:
    """Return the names of all tables."""
    return [table["name"] for table in _tables()]


def source_of(name: str) -> str:
    """Return where a table's numbers were published; empty if we do not know them."""
    return str(_table(name).get("source", ""))


def cells(name: str, on_disk: bool = False) -> list[Cell]:
    """Return the cells of a table, row by row.

    Args:
        name: Name of the table.
        on_disk: Whether to use the tasks for data on disk where lmms-eval has tasks of its own.

    Raises:
        ValueError: If there is no such table; the message suggests the most similar one.
    """
    table = _table(name)
    found = _of_presets(table, on_disk) if "presets" in table else _of_source(table, on_disk)
    return list(found)


def cells_for(checkpoint: str, found: Sequence[Cell]) -> list[Cell]:
    """Return the cells of the published checkpoint that has the name of `checkpoint`, or else those of the first."""
    names = list(dict.fromkeys(cell.checkpoint for cell in found))
    wanted = PurePosixPath(checkpoint).name
    chosen = next((name for name in names if PurePosixPath(name).name == wanted), names[0])
    return [cell for cell in found if cell.checkpoint == chosen]


@lru_cache(maxsize=1)
def _tables() -> Sequence[Mapping[str, Any]]:
    tables: list[dict[str, Any]] = tomllib.loads(_FILE.read_text(encoding="utf-8"))["table"]
    return tables


def _table(name: str) -> Mapping[str, Any]:
    for table in _tables():
        if table["name"] == name:
            return table
    raise ValueError(f"there is no table {name!r}{suggestion(name, table_names())}")


def _of_source(table: Mapping[str, Any], on_disk: bool) -> Iterator[Cell]:
    for checkpoint in table["checkpoints"]:
        short = PurePosixPath(checkpoint).name
        numbers = [one for one in published() if (one.source, one.checkpoint) == (table["source"], short)]
        whole = {one.benchmark: one.whole for one in numbers}
        for benchmark, accuracy in whole.items():
            options = table.get("options", {}).get(WHOLE, {})
            yield _cell(table, checkpoint, WHOLE, benchmark, on_disk, table["own"], options, accuracy, WHOLE)
        for one in numbers:
            row = one.method if one.retention is None else f"{one.method} {100 * one.retention:g} %"
            compressor, options = _compressor(table, one)
            given = (row, one.benchmark, on_disk, compressor, options, one.accuracy, one.method)
            yield _cell(table, checkpoint, *given)


def _of_presets(table: Mapping[str, Any], on_disk: bool) -> Iterator[Cell]:
    for checkpoint in table["checkpoints"]:
        for preset in table["presets"]:
            for benchmark in table["benchmarks"]:
                compressor, options = ("st_gridpool", {"preset": preset}) if preset else (table["own"], {})
                row = preset or WHOLE
                yield _cell(table, checkpoint, row, benchmark, on_disk, compressor, options, None, compressor)


def _cell(
    table: Mapping[str, Any],
    checkpoint: str,
    row: str,
    benchmark: str,
    on_disk: bool,
    compressor: str,
    options: Mapping[str, Any],
    accuracy: float | None,
    method: str,
) -> Cell:
    arguments = dict(table["arguments"])
    for place in (benchmark, method, row, f"{method}/{benchmark}"):
        arguments |= table.get("at", {}).get(place, {})
    task = _task(benchmark, table.get("tasks"), on_disk)
    return Cell(checkpoint, row, benchmark, task, compressor, options, arguments, accuracy)


def _task(benchmark: str, kind: str | None, on_disk: bool) -> str:
    """Choose among the tasks of a benchmark: those of a kind, those on disk, or lmms-eval's own, which is first."""
    names = benchmark_tasks()[benchmark]
    endings = (f"_{kind}",) if kind is not None else _ENDINGS_ON_DISK if on_disk else ("",)
    return next((name for name in names if name.endswith(endings)), names[0])


def _compressor(table: Mapping[str, Any], one: Published) -> tuple[str, dict[str, Any]]:
    """Return the compressor of a published number, with its options."""
    percent = "" if one.retention is None else f"{100 * one.retention:g}"
    given = table.get("options", {})
    options = given.get(f"{one.method}@{one.retention}", given.get(one.method))
    if options is None:
        options = _budget(one)
    if one.method == table.get("released"):
        options = {**options, "preset": "released"}
    options = {
        name: value.format(benchmark=one.benchmark, percent=percent) if isinstance(value, str) else value
        for name, value in options.items()
    }
    if "front" not in table:
        return one.method, options
    return f"{table['front']}+{one.method}", {one.method: options} if options else {}


def _budget(one: Published) -> dict[str, Any]:
    """Return the option that sets a method's budget as the source counts it, as far as the method has one."""
    if one.retention is None:
        return {}
    options = {field.name for field in fields(COMPRESSORS[one.method])}
    by_layers = "layer_average" in options and (one.retention_of == "layer_average" or "retention" not in options)
    return {"layer_average" if by_layers else "retention": one.retention}
