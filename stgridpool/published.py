"""Accuracies that papers published, to stand beside those of a run of the same checkpoint, task and method."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

_FILE = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class Published:
    """One number of a table.

    Attributes:
        method: Name of the method in `stgridpool.COMPRESSORS`.
        checkpoint: Name of the checkpoint, without its owner.
        benchmark: The benchmark, such as "videomme".
        tasks: Names of lmms-eval's tasks and ours that ask its questions.
        retention: Share of the tokens kept, 0 to 1; None for a method without a budget.
        retention_of: How the source counts it, one of `stgridpool.retention.DEFINITIONS`; None without a budget.
        accuracy: In %.
        whole: In %, of the same checkpoint without compression, in the same source.
        source: The paper and its table.
        setting: Frames and other settings of the source.
    """

    method: str
    checkpoint: str
    benchmark: str
    tasks: tuple[str, ...]
    retention: float | None
    retention_of: str | None
    accuracy: float
    whole: float
    source: str
    setting: str

    def __str__(self) -> str:
        kept = "" if self.retention is None else f" at {100 * self.retention:g} % ({self.retention_of})"
        return (
            f"published: {self.method}{kept}, {self.checkpoint}, {self.benchmark}: {self.accuracy} "
            f"({self.whole} without compression); {self.setting}; {self.source}"
        )


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Return all numbers that we know, in the order of the file."""
    content, tasks = _content(), benchmark_tasks()
    found = []
    for source in content["source"]:
        tables: dict[float | None, dict[str, list[float]]] = {None: source.get("unbudgeted", {})}
        tables |= {float(retention): rows for retention, rows in source.get("kept", {}).items()}
        for retention, rows in tables.items():
            for method, accuracies in rows.items():
                numbers = zip(source["benchmarks"], accuracies, source["whole"], strict=True)
                found += [
                    Published(
                        method,
                        source["checkpoint"],
                        benchmark,
                        tasks[benchmark],
                        retention,
                        None if retention is None else source.get("retention_of"),
                        accuracy,
                        whole,
                        source["name"],
                        source["setting"],
                    )
                    for benchmark, accuracy, whole in numbers
                    if not math.isnan(accuracy)
                ]
    return tuple(found)


def benchmark_tasks() -> dict[str, tuple[str, ...]]:
    """Return the names of the tasks that ask each benchmark's questions: lmms-eval's own first, if it has one."""
    benchmarks: dict[str, list[str]] = _content()["benchmarks"]
    return {benchmark: tuple(tasks) for benchmark, tasks in benchmarks.items()}


@lru_cache(maxsize=1)
def _content() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def published_for(method: str, checkpoint: str, task: str, retention: float | None) -> list[Published]:
    """Return what is published for a method at a retention.

    Args:
        method: Its name in `stgridpool.COMPRESSORS`.
        checkpoint: Folder or name of the checkpoint, with or without its owner.
        task: Name of lmms-eval's task or of ours.
        retention: Share kept, by any definition; None for a method that has no budget.
    """
    name = PurePosixPath(checkpoint.replace("\\", "/")).name.lower()
    return [
        one
        for one in published()
        if one.method == method and one.checkpoint.lower() == name and task in one.tasks and one.retention == retention
    ]
