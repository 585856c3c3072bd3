"""Whether runs can be compared: differences between the weights, settings, task files and frames that they used."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval_stgridpool.comparison.finished_run import FinishedRun, Samples

FRAME_OPTIONS = ("max_frames_num", "fps", "sampling", "force_sample", "min_pixels", "max_pixels")
"""Entries of a record that say which frames a run asked for."""


@dataclass(frozen=True)
class Difference:
    """What two runs did not share.

    Attributes:
        text: The runs and the difference.
        is_hidden: Whether the runs call it by the same name, so that nobody would notice.
    """

    text: str
    is_hidden: bool = False


def check_comparable(runs: Sequence[FinishedRun], anyway: bool = False) -> list[str]:
    """Check that runs differ in what they say, and in nothing else.

    Args:
        runs: Those of one table.
        anyway: Whether to warn where they are refused otherwise.

    Returns:
        Warnings.

    Raises:
        ValueError: If runs used different files under one name: another task file of the same task, other weights of
            the same checkpoint, or other frames although they asked for the same.
    """
    found = list(dict.fromkeys(differences(runs)))
    hidden = [one.text for one in found if one.is_hidden]
    if hidden and not anyway:
        raise ValueError(f"{'; '.join(hidden)}: run them again, or compare them with --anyway")
    old = [run.name for run in runs if "fingerprints" not in run.record]
    if old and len(runs) > 1:
        names = ", ".join(old)
        found.append(Difference(f"{names}: no fingerprints, so nobody can tell whether files and frames are the same"))
    return [one.text for one in found]


def differences(runs: Sequence[FinishedRun]) -> Iterator[Difference]:
    """Compare each run with the first one of the same task."""
    tasks = dict.fromkeys(task for run in runs for task in run.samples)
    pairs: dict[tuple[str, str], tuple[FinishedRun, FinishedRun]] = {}
    for task in tasks:
        first, *others = (run for run in runs if task in run.samples)
        for other in others:
            pairs[first.name, other.name] = (first, other)
            yield from _of_task(task, first, other)
            yield from _of_questions(task, first, other)
            yield from _of_frames(task, first, other)
    for first, other in pairs.values():
        yield from _of_checkpoints(first, other)


def _of_task(task: str, first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    changed = _changed(*(_prints(run, "tasks").get(task, {}) for run in (first, other)))
    if changed:
        text = f"{first.name} and {other.name} ran different files of task {task} ({', '.join(changed)})"
        yield Difference(text, is_hidden=True)


def _of_questions(task: str, first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    ours, theirs = ({sample["doc_id"] for sample in run.samples[task]} for run in (first, other))
    if ours != theirs:
        text = f"{task}: {first.name} was asked {len(ours)} questions, and {other.name} {len(theirs)}"
        yield Difference(f"{text}, of which {len(ours & theirs)} are the same")


def _of_checkpoints(first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    names = [run.record.get("checkpoint") for run in (first, other)]
    parts = [part for part in _prints(first) if part in _prints(other) and part not in ("tasks", "frame_indices")]
    for part in parts:
        whose = "the checkpoint" if part == "pretrained" else part
        weights, settings = (
            _changed(*(_prints(run, part).get(kind, {}) for run in (first, other))) for kind in ("weights", "settings")
        )
        if weights and names[0] == names[1]:
            text = f"{first.name} and {other.name} ran different weights of {whose} of {names[0]}"
            yield Difference(f"{text} ({', '.join(weights)})", is_hidden=True)
        elif weights and part == "pretrained":
            yield Difference(f"{first.name} ran {names[0]}, {other.name} {names[1]}, whose weights differ")
        elif settings and not weights:
            text = f"{first.name} and {other.name} ran the same weights of {whose} with different settings"
            yield Difference(f"{text} ({', '.join(settings)})")


def _of_frames(task: str, first: FinishedRun, other: FinishedRun) -> Iterator[Difference]:
    ours, theirs = (_frames(run.samples[task]) for run in (first, other))
    common = ours.keys() & theirs.keys()
    changed = sum(ours[question] != theirs[question] for question in common)
    if not changed:
        return
    text = f"{task}: {first.name} and {other.name} saw different frames in {changed} of {len(common)} questions"
    if all(first.record.get(name) == other.record.get(name) for name in FRAME_OPTIONS):
        yield Difference(f"{text} although they asked for the same: their videos differ", is_hidden=True)
    else:
        yield Difference(text)


def _frames(samples: Samples) -> dict[object, str]:
    """Return the digest of the frames of each question that has one."""
    found = {}
    for sample in samples:
        digests = [counts.get("frames_sha256") for counts in sample["token_counts"] if counts]
        if digests and digests[0]:
            found[sample["doc_id"]] = digests[0]
    return found


def _prints(run: FinishedRun, part: str | None = None) -> Mapping[str, Any]:
    prints: Mapping[str, Any] = run.record.get("fingerprints", {})
    return prints if part is None else prints.get(part, {})


def _changed(ours: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> list[str]:
    """Return the names of files that differ, or that one of two runs lacks; nothing if one has no fingerprints."""
    if not ours or not theirs:
        return []
    names = sorted(ours.keys() | theirs.keys())
    missing = "no such file"
    pairs = [(name, ours.get(name, missing), theirs.get(name, missing)) for name in names]
    return [name for name, one, two in pairs if one != two and None not in (one, two)]
