"""Intervals of means whose draws are videos, not questions."""

import math
from collections.abc import Hashable, Sequence
from statistics import mean


def clustered_interval(values: Sequence[float], videos: Sequence[Hashable]) -> float | None:
    """Return half the width of the 95 % interval of a mean of values whose draws are videos, not questions.

    The residuals of a video's questions are summed before they are squared (the sandwich estimate of a clustered mean).

    Args:
        values: One for each question, at least one.
        videos: The video of each question.

    Returns:
        The half, in the unit of the values; None if there is only one video.
    """
    average = mean(values)
    residuals: dict[Hashable, float] = {}
    for value, video in zip(values, videos, strict=True):
        residuals[video] = residuals.get(video, 0.0) + value - average
    if len(residuals) < 2:
        return None
    variance = sum(value**2 for value in residuals.values()) * len(residuals) / (len(residuals) - 1)
    return 1.96 * math.sqrt(variance) / len(values)
