"""The files of a run: its record beside lmms-eval's results, and what its end adds to them.

lmms-eval lets a model add facts to each sample, and nothing to the results file. What a run did therefore goes to a
file of its own, ``<time>_run.json``. It is made when the run starts: lmms-eval names files by the second, so that two
runs of one second would write into the same ones.
"""

import atexit
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from lmms_eval_stgridpool.run.evaluation import current_evaluation
from lmms_eval_stgridpool.run.failure import end_with_failure
from lmms_eval_stgridpool.run.unanswered import Verdict


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Attributes:
        record: The record that this project writes.
        results: The results file that lmms-eval writes.
    """

    record: Path
    results: Path

    @classmethod
    def claim(cls, folder: Path, time: str) -> "RunFiles":
        """Take the files' names before another run can.

        Args:
            folder: Where lmms-eval will write.
            time: What the names begin with.

        Raises:
            FileExistsError: If another run has them.
        """
        files = cls(record=folder / f"{time}_run.json", results=folder / f"{time}_results.json")
        files.record.parent.mkdir(parents=True, exist_ok=True)
        try:
            files.record.touch(exist_ok=False)
        except FileExistsError:
            files._refuse()
        atexit.register(files._release)
        if files.results.exists():
            files._refuse()
        return files

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the record."""
        _replace(self.record, record)

    def _refuse(self) -> None:
        raise FileExistsError(
            f"another run that started in the same second writes {self.results}: start this one again, or give it "
            "another --output_path"
        )

    def _release(self) -> None:
        """Remove the record of a run that ends without having written it."""
        if self.record.exists() and not self.record.stat().st_size:
            self.record.unlink()


def end_run(record: Mapping[str, Any], verdict: Verdict, files: RunFiles | None) -> None:
    """Write the record when all questions have been asked, and have `conclude` called at the end of the process.

    Args:
        record: What `run_record` gave.
        verdict: How many questions are unanswered.
        files: Where the record goes, or None.
    """
    if verdict.failed:
        logger.error(
            f"{verdict}. Some of lmms-eval's own tasks score that as a guess; the tasks of custom_tasks count it "
            "as wrong."
        )
    if files is not None:
        files.write(record)
    evaluation = current_evaluation()
    if evaluation is not None and evaluation.command_line is not None:
        atexit.register(conclude, verdict, None if files is None else files.results)


def conclude(verdict: Verdict, results: Path | None) -> None:
    """Mark the results of a run that left questions unanswered, and say so below lmms-eval's table.

    The process ends with status 1 if the run has failed, or has not written its results.

    Args:
        verdict: How many questions are unanswered.
        results: The file that lmms-eval should have written by now, or None.
    """
    if results is not None and not results.exists():
        logger.critical(f"lmms-eval has not written {results}: its messages above say why")
        end_with_failure()
    elif results is not None and (verdict.failed or verdict.damaged_videos):
        mark(results, verdict)
    if verdict.damaged_videos:
        logger.warning(verdict.damage)
    if verdict.failed:
        logger.log("CRITICAL" if verdict.run_failed else "ERROR", str(verdict))
    if verdict.run_failed:
        end_with_failure()


def mark(results: Path, verdict: Verdict) -> None:
    """Put unanswered questions and damaged videos in front of everything in a results file, and that a run failed."""
    note: dict[str, Any] = {"run_failed": str(verdict)} if verdict.run_failed else {}
    if verdict.failed:
        note["unanswered"] = {"questions": verdict.failed, "of": verdict.asked, "reasons": dict(verdict.kinds)}
    if verdict.damaged_videos:
        note["damaged_videos"] = dict(verdict.damaged_videos)
    _replace(results, note | json.loads(results.read_text(encoding="utf-8")))


def _replace(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file that is never seen half written."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
    beside.replace(path)
