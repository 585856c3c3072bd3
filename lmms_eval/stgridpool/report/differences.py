"""Paired differences between two runs that answered the same questions."""

import math
from dataclasses import dataclass
from statistics import mean

from lmms_eval_stgridpool.comparison.intervals import clustered_interval
from lmms_eval_stgridpool.report.runs import TaskRun


@dataclass(frozen=True)
class Difference:
    """How a run differs from the baseline, over the questions that both scored.

    Attributes:
        score: Mean difference of the questions' scores; None if the metric keeps none.
        interval: Half of its 95 % interval, whose draws are videos; None for a single video.
        p_value: Two-sided, of the hypothesis that the mean difference is 0, by the normal distribution.
        changed: Fraction of the answers that differ, 0 to 1.
        better: Questions with a higher score.
        worse: Questions with a lower score.
        questions: Number of questions that both answered.
    """

    score: float | None
    interval: float | None
    p_value: float | None
    changed: float
    better: int
    worse: int
    questions: int


def compare(run: TaskRun, baseline: TaskRun) -> Difference | None:
    """Compare two runs of a task question by question; None if they share none."""
    documents = [document for document in baseline.samples if document in run.samples]
    if not documents:
        return None
    changed = mean(run.answer(document) != baseline.answer(document) for document in documents)
    pairs = [
        (run.video(document), run.entry(document)["score"] - baseline.entry(document)["score"])
        for document in documents
        if all(isinstance(one.entry(document).get("score"), int | float) for one in (run, baseline))
    ]
    if not pairs:
        return Difference(None, None, None, changed, 0, 0, len(documents))
    gains = [gain for _, gain in pairs]
    interval = clustered_interval(gains, [video for video, _ in pairs])
    return Difference(
        score=mean(gains),
        interval=interval,
        p_value=_p_value(mean(gains), interval),
        changed=changed,
        better=sum(gain > 0 for gain in gains),
        worse=sum(gain < 0 for gain in gains),
        questions=len(documents),
    )


def _p_value(average: float, interval: float | None) -> float | None:
    if interval is None:
        return None
    if interval == 0:
        return 1.0 if average == 0 else 0.0
    return math.erfc(abs(average) / (interval / 1.96) / math.sqrt(2))
