"""The unit of a task's score, which no file of a run names: percent, or a share of 1."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

PERCENT = 100
"""Factor from a share to a score in %."""
SHARE = 1
"""Factor from a share to a share."""
KNOWN = {
    "videomme_perception_score": PERCENT,
    "mvbench_accuracy": PERCENT,
    "mlvu_percetion_score": PERCENT,
    "lvb_acc": SHARE,
    "exact_match": SHARE,
    "submission": PERCENT,
}
"""The unit of lmms-eval's metrics for the benchmarks of published tables; EgoSchema's server returns `submission`."""


def unit_of(metric: str, score: float, samples: Sequence[Mapping[str, Any]]) -> int | None:
    """Return `PERCENT` or `SHARE`; None if it cannot be known.

    The scores that a metric keeps of questions, 0 to 1, tell it, however small the score is: 0.8 is in percent if eight
    of 1,000 questions are right.

    Args:
        metric: Name of the metric.
        score: Its value for all questions.
        samples: The questions.
    """
    scores = [one for sample in samples if (one := question_score(sample.get(metric))) is not None]
    average = mean(scores) if scores else 0.0
    if average:
        return unit_by_average(score, average)
    return KNOWN.get(metric)


def unit_by_average(score: float, average: float) -> int:
    """Return `PERCENT` if a score is nearer to 100 times the average of the questions' scores than to it, else `SHARE`.

    Nearer by their ratios, as a score may weigh questions differently.
    """
    return PERCENT if abs(score) > PERCENT**0.5 * abs(average) else SHARE


def question_score(entry: object) -> float | None:
    """Return the score in what a metric keeps of a question; None if it keeps none."""
    found = entry.get("score") if isinstance(entry, Mapping) else entry
    return float(found) if isinstance(found, int | float) else None
