"""What compression settings cost and keep, question by question beside the uncompressed model."""

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from lmms_eval_stgridpool.comparison.intervals import clustered_interval
from lmms_eval_stgridpool.comparison.rows import SHARED_STAGES

Sample = Mapping[str, Any]
BYTES_PER_MB = 1e6
ROUNDING = 1e-9
ENTRIES = ("accuracy", "answered", "not_scored")
"""Names under which a sample of the task `my_videos` shows its answer."""


@dataclass(frozen=True)
class Mean:
    """A mean over questions.

    Attributes:
        value: The mean.
        interval: Half of its 95 % interval, whose draws are videos; None for a single video.
        count: Number of questions.
        videos: Number of their videos.
    """

    value: float
    interval: float | None
    count: int
    videos: int

    @property
    def upper(self) -> float:
        """The upper end of its interval; if videos do not differ, 3 / videos above the mean, by the rule of three."""
        interval = self.interval or 0.0
        return self.value + (interval if interval > ROUNDING else 3 / self.videos)

    @classmethod
    def of(cls, values: Sequence[float], videos: Sequence[Hashable]) -> "Mean | None":
        """Average values, one per question; None if there are none."""
        if not values:
            return None
        return cls(mean(values), clustered_interval(values, videos), len(values), len(set(videos)))


@dataclass(frozen=True)
class Setting:
    """A compressor with its options, over all questions that every setting could answer.

    Attributes:
        run: Name of its run.
        model_args: The arguments that evaluate it alone.
        accuracy: Over the questions whose answer is known, 0 to 1; None if there are none.
        agreement: With the uncompressed model, over the other questions, 0 to 1, see `agreement`; None if there are
            none.
        loss: How much less of accuracy or agreement it has than the uncompressed model, as a mean of the differences in
            each question.
        seconds: Per question, without reading and encoding the video.
        cache_mb: Keys and values of the prompt per question, in MB.
        peak_gpu_mb: Peak memory that torch held on a GPU, weights included, in MB; None on the CPU.
        is_on_front: Whether no other setting is as good in loss, seconds and cache, and better in one of them.
    """

    run: str
    model_args: str
    accuracy: Mean | None
    agreement: Mean | None
    loss: Mean
    seconds: Mean
    cache_mb: Mean
    peak_gpu_mb: float | None = None
    is_on_front: bool = False


def measure(
    runs: Mapping[str, Sequence[Sample]], reference: str, model_args: Mapping[str, str], kv_bytes_per_token: float
) -> list[Setting]:
    """Measure every run against the uncompressed one.

    Args:
        runs: Samples of the task `my_videos` by run.
        reference: The uncompressed run.
        model_args: See `Setting`, by run.
        kv_bytes_per_token: Bytes of keys and values that a position takes in all layers.

    Returns:
        A setting for each run, in order; `is_on_front` is set.

    Raises:
        ValueError: If no question could be answered in every run.
    """
    by_run = {run: {sample["doc_id"]: sample for sample in samples} for run, samples in runs.items()}
    answered = [
        key for key in by_run[reference] if not any(_facts(of_run[key])["failed"] for of_run in by_run.values())
    ]
    if not answered:
        raise ValueError("no question could be answered: see the messages above about the videos")
    own = [by_run[reference][key] for key in answered]
    settings = [
        _setting(run, model_args[run], [samples[key] for key in answered], own, kv_bytes_per_token)
        for run, samples in by_run.items()
    ]
    return [replace(one, is_on_front=not any(_dominates(other, one) for other in settings)) for one in settings]


def agreement(answer: str, other: str) -> float:
    """Return the overlap of the words of two answers (F1): 1 for the same words in any order, 0 for none in common."""
    words, others = (Counter(re.findall(r"\w+", text.lower())) for text in (answer, other))
    if not words and not others:
        return 1.0
    return 2 * (words & others).total() / (words.total() + others.total())


def _setting(
    run: str, model_args: str, samples: Sequence[Sample], own: Sequence[Sample], kv_bytes_per_token: float
) -> Setting:
    videos = [_entry(sample)["videoID"] for sample in samples]
    known = [_score(sample) is not None for sample in samples]
    kept = [_kept(sample, before) for sample, before in zip(samples, own, strict=True)]

    def average(values: Sequence[float], where: Sequence[bool] | None = None) -> Mean | None:
        rows = [row for row in range(len(values)) if where is None or where[row]]
        return Mean.of([values[row] for row in rows], [videos[row] for row in rows])

    losses = [_kept(before, before) - now for before, now in zip(own, kept, strict=True)]
    caches = [_positions(sample) * kv_bytes_per_token / BYTES_PER_MB for sample in samples]
    loss, seconds, cache = average(losses), average([_seconds(sample) for sample in samples]), average(caches)
    if loss is None or seconds is None or cache is None:
        raise ValueError(f"{run} has no samples")
    return Setting(
        run, model_args, average(kept, known), average(kept, [not one for one in known]), loss, seconds, cache
    )


def _kept(sample: Sample, own: Sample) -> float:
    """Return the score of an answer, or its agreement with the uncompressed model's where there is no score."""
    score = _score(sample)
    return agreement(_read(sample), _read(own)) if score is None else score


def _score(sample: Sample) -> float | None:
    """Return the score of an answer; None if the right answer is not known."""
    score: float | None = sample["accuracy"]["score"] if "accuracy" in sample else None
    return score


def _entry(sample: Sample) -> Mapping[str, Any]:
    entry: Mapping[str, Any] = next(sample[name] for name in ENTRIES if name in sample)
    return entry


def _read(sample: Sample) -> str:
    """Return an answer as the task read it, or as it is if the task read nothing."""
    answer = sample["filtered_resps"]
    return str(_entry(sample)["pred_answer"] or (answer if isinstance(answer, str) else answer[0]))


def _facts(sample: Sample) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = sample["token_counts"][0]
    return facts


def _seconds(sample: Sample) -> float:
    return float(sum(spent for stage, spent in _facts(sample)["seconds"].items() if stage not in SHARED_STAGES))


def _positions(sample: Sample) -> float:
    """Return the positions of a prompt, averaged over the layers of the language model."""
    facts = _facts(sample)
    text = facts["input_tokens"] - facts["visual_tokens"] - facts["newline_tokens"]
    return float(text + facts["kept_tokens"]["layer_average_with_newlines"])


def _dominates(one: Setting, other: Setting) -> bool:
    """Return whether a setting is at least as good in everything, and better in something."""
    pairs = [(getattr(one, name).value, getattr(other, name).value) for name in ("loss", "seconds", "cache_mb")]
    return all(ours <= theirs for ours, theirs in pairs) and any(ours < theirs for ours, theirs in pairs)
