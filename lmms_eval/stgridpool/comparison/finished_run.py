"""Finished runs on disk: their results, their record and their samples."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

RESULTS_ENDING = "_results.json"

Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class FinishedRun:
    """The newest run of a folder.

    Attributes:
        name: The folder's name, with as many parents as tell it from other runs.
        record: The record of the run.
        results: Results by task.
        samples: Samples by task, of the tasks that have any.
    """

    name: str
    record: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Samples]


def find_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Load the runs below folders: the newest in each folder of results, such as those that a sweep writes.

    Runs with the same folder name are told apart by as many parents as that takes.

    Args:
        folders: Output folders of runs or of sweeps.

    Raises:
        FileNotFoundError: If a folder holds no run, or a run is incomplete.
    """
    return [replace(load_run(folder), name=name) for name, folder in find_folders(folders)]


def find_folders(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return names and folders of the runs below folders, see `find_runs`."""
    holders: dict[Path, Path] = {}
    for folder in folders:
        holders |= _runs_below(folder.resolve())
    return list(zip(_distinct(list(holders)), holders.values(), strict=True))


def load_run(folder: Path, record: Mapping[str, Any] | None = None) -> FinishedRun:
    """Load the newest run below `folder`.

    Args:
        folder: An output folder.
        record: Stands in for the record, which models of lmms-eval do not write; None to read it.

    Raises:
        FileNotFoundError: If there is no results file, or no record or samples beside it.
    """
    found = sorted(folder.rglob(f"*{RESULTS_ENDING}"), key=lambda path: path.name)
    if not found:
        raise FileNotFoundError(f"no *{RESULTS_ENDING} below {folder}: did the run fail?")
    stem = str(found[-1]).removesuffix(RESULTS_ENDING)
    results = json.loads(found[-1].read_text(encoding="utf-8"))["results"]
    if record is None:
        record = json.loads(Path(f"{stem}_run.json").read_text(encoding="utf-8"))
    beginning = f"{Path(stem).name}_samples_"
    samples = {
        path.name.removeprefix(beginning).removesuffix(".jsonl"): [
            json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
        ]
        for path in sorted(found[-1].parent.glob(f"{beginning}*.jsonl"))
    }
    if not samples:
        raise FileNotFoundError(f"no samples beside {found[-1]}: was the run started with --log_samples?")
    return FinishedRun(folder.name, record, results, samples)


def _runs_below(folder: Path) -> dict[Path, Path]:
    """Return where results are, by the folder that names the run; lmms-eval writes into OUTPUT/CHECKPOINT."""
    holders = sorted({path.parent for path in folder.rglob(f"*{RESULTS_ENDING}")})
    if len(holders) < 2:
        return {folder: folder}
    parents = Counter(holder.parent for holder in holders)
    return {holder.parent if holder != folder and parents[holder.parent] == 1 else holder: holder for holder in holders}


def _distinct(folders: Sequence[Path]) -> list[str]:
    """Name each folder by its last part, or by as many last parts as tell it from the others."""
    names = []
    for folder in folders:
        count = 1
        while sum(other.parts[-count:] == folder.parts[-count:] for other in folders) > 1:
            count += 1
        names.append("/".join(folder.parts[-count:]))
    return names
