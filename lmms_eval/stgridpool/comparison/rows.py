"""One row per task of a run: tokens and time per video, and the score.

The newest run in a folder counts. Tokens come from lmms-eval's samples file, as means over the answered questions;
seconds from the record that the model writes beside the results, summed over stages and processes and divided by the
questions, without the reading and encoding that the runs of a sweep share; the accuracy is the task's first metric, as
lmms-eval reports it, with a 95 % interval that counts the questions of one video as one draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from lmms_eval_stgridpool.comparison.finished_run import FinishedRun, Samples
from lmms_eval_stgridpool.comparison.intervals import clustered_interval
from lmms_eval_stgridpool.comparison.units import unit_by_average, unit_of

SHARED_STAGES = ("wait_for_video", "decode", "preprocess", "read_features", "vision", "write_features")
"""Stages that a sweep goes through once for all its runs."""


@dataclass(frozen=True)
class Row:
    """One task of one run."""

    run: str  # the folder's name
    task: str
    compressor: str  # with all its options
    questions: int
    unanswered: int  # questions of this task that could not be answered
    failure: str | None  # why the run failed; None where it did not
    tokens_per_frame: float | None  # newline tokens apart; None, as below, where a failed run answered nothing
    tokens_per_video: float | None  # newline tokens apart
    newlines_per_video: float | None
    retention_mean: float | None  # over questions: tokens at the last layer / tokens after its own pooling, 0 to 1
    retention_total: float | None  # the same over all tokens
    seconds_per_question: float | None  # None where all answers are those of an earlier run
    metric: str
    score: float
    interval: float | None  # half of the 95 % interval of the score; None where samples have no score of their own
    parts: dict[str, float]  # score of the questions of each kind
    unit: int | None  # 100 for a score in %, 1 for a share of 1; None where nobody can tell


def rows_of(run: FinishedRun, by: str | None = None, of: str = "last_layer") -> list[Row]:
    """Return one row per task of a run.

    Args:
        run: The run.
        by: What divides questions into kinds, see `scores_by`; None for nothing.
        of: Which retention, one of `stgridpool.retention.DEFINITIONS`.

    Raises:
        NoScoreError: If a task's results hold no number.
        ValueError: If none of a task's questions was answered; see also `scores_by`.
    """
    rows = []
    for task, samples in run.samples.items():
        row = summarise(run.name, task, run.record, samples, run.results[task], of)
        rows.append(row if by is None else replace(row, parts=scores_by(by, samples, row.metric, row.score)))
    return rows


class NoScoreError(ValueError):
    """A task has no score, such as one whose answers a server scores."""


def first_metric(task: str, results: Mapping[str, Any]) -> tuple[str, float]:
    """Return name and value of the task's first metric that is a number and not a standard error.

    Raises:
        NoScoreError: If there is none.
    """
    for key, value in results.items():
        name = key.split(",")[0]
        if isinstance(value, int | float) and "_stderr" not in name:
            return name, float(value)
    raise NoScoreError(f"the results of {task} hold no number")


def score_interval(samples: Samples, metric: str, score: float) -> float | None:
    """Return half the width of the 95 % interval of a mean of scores, see `clustered_interval`.

    Questions that the metric does not score do not count. None where it keeps no scores.
    """
    known = [sample for sample in samples if metric in sample]
    entries: list[Any] = [sample[metric] for sample in known]
    if not entries or not all(
        isinstance(entry, dict) and isinstance(entry.get("score"), int | float) for entry in entries
    ):
        return None
    videos = [entry.get("videoID", sample["doc_id"]) for sample, entry in zip(known, entries, strict=True)]
    scores = [entry["score"] for entry in entries]
    interval = clustered_interval(scores, videos)
    return None if interval is None else unit_by_average(score, mean(scores)) * interval


def scores_by(field: str, samples: Sequence[Mapping[str, Any]], metric: str, score: float) -> dict[str, float]:
    """Return the mean score of the questions of each kind, in the unit of `score`.

    Args:
        field: What divides questions into kinds: a name in what the task's metric keeps of a question, such as
            Video-MME's "duration" or "task_category".
        samples: The task's questions.
        metric: Name of the metric.
        score: Its value for all questions.

    Raises:
        ValueError: If the metric does not keep the field, or no score; the message names what it keeps.
    """
    kinds: dict[str, list[float]] = {}
    for sample in samples:
        if metric not in sample:  # a question that it does not score
            continue
        entry = sample[metric]
        if not isinstance(entry, dict) or field not in entry or "score" not in entry:
            kept = ", ".join(entry) if isinstance(entry, dict) else "nothing"
            raise ValueError(f"{metric} keeps no {field} of a question, but {kept}: pass one of these to --by")
        kinds.setdefault(str(entry[field]), []).append(entry["score"])
    unit = unit_by_average(score, mean(one for scores in kinds.values() for one in scores))
    return {kind: unit * mean(scores) for kind, scores in sorted(kinds.items())}


def _own_seconds(record: Mapping[str, Any]) -> float:
    """Return the seconds of a run, without what runs of a sweep share: it would be charged to the first alone."""
    shared = SHARED_STAGES if "sweep" in record else ()
    seconds: Mapping[str, float] = record["seconds"]
    return sum(spent for stage, spent in seconds.items() if stage not in shared)


def summarise(
    run: str,
    task: str,
    record: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
    of: str = "last_layer",
) -> Row:
    """Reduce a task's samples and results, and the run's record, to a row.

    Raises:
        NoScoreError: If no result is a number.
        ValueError: If no sample has frames.
    """
    metric, score = first_metric(task, results)
    counts = [[one for one in sample["token_counts"] if one] for sample in samples]
    facts = [one for of_sample in counts for one in of_sample if one["frames"]]
    failure = record.get("run_failed")
    if not facts and not failure:
        raise ValueError(f"none of the questions of {task} in {run} was answered from a video")

    return Row(
        run=run,
        task=task,
        compressor=record["compressor"],
        questions=len(samples),
        unanswered=sum(any(one.get("failed") for one in of_sample) for of_sample in counts),
        failure=failure,
        **_tokens(facts, of),
        seconds_per_question=_ratio(_own_seconds(record), record["requests"]),
        metric=metric,
        score=score,
        interval=score_interval(samples, metric, score),
        parts={},
        unit=unit_of(metric, score, samples),
    )


def _tokens(facts: Sequence[Mapping[str, Any]], of: str) -> dict[str, float | None]:
    """Return the columns of a row that count tokens, from the facts about each video that a question was shown."""
    return {
        "tokens_per_frame": _ratio(sum(fact["visual_tokens"] for fact in facts), sum(fact["frames"] for fact in facts)),
        "tokens_per_video": _ratio(sum(fact["visual_tokens"] for fact in facts), len(facts)),
        "newlines_per_video": _ratio(sum(fact["newline_tokens"] for fact in facts), len(facts)),
        "retention_mean": mean(fact["retention"][of] for fact in facts) if facts else None,
        "retention_total": _ratio(
            sum(fact["kept_tokens"][of] for fact in facts), sum(fact["full_tokens"] for fact in facts)
        ),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
