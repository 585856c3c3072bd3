"""Kinds of questions: fields that a metric keeps of each question, and that divide the questions into a few groups."""

from collections.abc import Sequence
from statistics import mean

from lmms_eval_stgridpool.report.runs import TaskRun

MOST_KINDS = 30
USUAL = ("duration", "duration_group", "task_category", "task_type", "question_category", "type", "sub_task")


def usual_fields(runs: Sequence[TaskRun]) -> list[str]:
    """Return the usual fields that divide the questions of a task's runs."""
    return [field for field in USUAL if 1 < len(_values(runs[0], field)) <= MOST_KINDS]


def scores_of_kinds(run: TaskRun, field: str) -> dict[str, tuple[float, int]]:
    """Return mean score and number of the questions of each kind.

    Raises:
        ValueError: If the metric keeps no such field; the message names those that it keeps.
    """
    kinds: dict[str, list[float]] = {}
    for document in run.samples:
        entry = run.entry(document)
        if field in entry and isinstance(entry.get("score"), int | float):
            kinds.setdefault(str(entry[field]), []).append(entry["score"])
    if not kinds:
        kept = ", ".join(run.entry(next(iter(run.samples)))) or "nothing"
        raise ValueError(f"{run.metric} of {run.task} keeps no {field} of a question, but {kept}: pass one of these")
    return {kind: (mean(scores), len(scores)) for kind, scores in sorted(kinds.items())}


def _values(run: TaskRun, field: str) -> set[str]:
    entries = [run.entry(document) for document in run.samples]
    return {str(entry[field]) for entry in entries if field in entry}
