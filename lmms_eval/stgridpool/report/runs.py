"""Runs for a report: those of our models, and those of lmms-eval's own, which have neither record nor counts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from lmms_eval_stgridpool.comparison.finished_run import RESULTS_ENDING, FinishedRun, find_folders, load_run
from lmms_eval_stgridpool.comparison.rows import SHARED_STAGES, first_metric, score_interval

Sample = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TaskRun:
    """One task of one run.

    Attributes:
        run: The run's name.
        task: The task's name.
        compressor: With all its options; "-" for a model of lmms-eval.
        metric: The task's first metric.
        score: As lmms-eval reports it.
        interval: Half of its 95 % interval, see `score_interval`; None if the samples have no scores.
        samples: By document.
        unanswered: Questions without an answer.
        failure: Why the run failed; None where it did not.
        frames: Mean over the answered questions; None if it is not known, as below.
        tokens: Visual tokens per video that enter the language model, newlines apart.
        retention: Fraction of the checkpoint's own tokens at the last layer.
        seconds: Seconds per question by stage, in which a sweep's runs do not count what they share.
        record: The record of the run; without entries for a model of lmms-eval.
    """

    run: str
    task: str
    compressor: str
    metric: str
    score: float
    interval: float | None
    samples: Mapping[object, Sample]
    unanswered: int
    failure: str | None
    frames: float | None
    tokens: float | None
    retention: float | None
    seconds: Mapping[str, float]
    record: Mapping[str, Any]

    @property
    def seconds_per_question(self) -> float | None:
        """The sum over stages; None if it is not known."""
        return sum(self.seconds.values()) if self.seconds else None

    def entry(self, document: object) -> Mapping[str, Any]:
        """Return what the metric keeps of a question; nothing if it does not score it."""
        entry = self.samples[document].get(self.metric)
        return entry if isinstance(entry, Mapping) else {}

    def video(self, document: object) -> object:
        """Return the video of a question, or the document if the task does not name videos."""
        return self.entry(document).get("videoID", document)

    def answer(self, document: object) -> str:
        """Return the answer that was scored."""
        found = self.entry(document).get("pred_answer") or self.samples[document]["filtered_resps"]
        return str(found if isinstance(found, str) or not found else found[0]).strip()


def read_task_runs(folders: Sequence[Path]) -> list[TaskRun]:
    """Read all runs below folders, a row for each task.

    Raises:
        FileNotFoundError: If a folder holds no run, or a run has no samples.
        ValueError: If a task's results hold no number.
    """
    runs = [replace(_load(folder), name=name) for name, folder in find_folders(folders)]
    return [_task_run(run, task) for run in runs for task in run.samples]


def _load(folder: Path) -> FinishedRun:
    newest = max(folder.rglob(f"*{RESULTS_ENDING}"), key=lambda path: path.name)
    if newest.with_name(newest.name.removesuffix(RESULTS_ENDING) + "_run.json").is_file():
        return load_run(folder)
    config = json.loads(newest.read_text(encoding="utf-8"))["config"]
    return load_run(folder, record={"model": config["model"], "model_args": config.get("model_args")})


def _task_run(run: FinishedRun, task: str) -> TaskRun:
    metric, score = first_metric(task, run.results[task])
    samples = run.samples[task]
    counts = [[one for one in sample.get("token_counts") or () if one] for sample in samples]
    facts = [one for of_sample in counts for one in of_sample if one.get("frames")]
    failed = sum(any(one.get("failed") for one in of_sample) for of_sample in counts)

    def average(name: str) -> float | None:
        return mean(fact[name] for fact in facts) if facts and name in facts[0] else None

    return TaskRun(
        run=run.name,
        task=task,
        compressor=run.record.get("compressor", "-"),
        metric=metric,
        score=score,
        interval=score_interval(samples, metric, score),
        samples={sample["doc_id"]: sample for sample in samples},
        unanswered=failed,
        failure=run.record.get("run_failed"),
        frames=average("frames"),
        tokens=average("visual_tokens"),
        retention=mean(fact["retention"]["last_layer"] for fact in facts)
        if facts and "retention" in facts[0]
        else None,
        seconds=_seconds(run.record),
        record=run.record,
    )


def _seconds(record: Mapping[str, Any]) -> dict[str, float]:
    if not record.get("requests") or "seconds" not in record:
        return {}
    shared = SHARED_STAGES if "sweep" in record else ()
    return {stage: spent / record["requests"] for stage, spent in record["seconds"].items() if stage not in shared}
