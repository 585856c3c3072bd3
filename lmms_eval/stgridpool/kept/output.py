"""The files of a run: its record, written beside lmms-eval's results, and the marks in the results of a failed run.

lmms-eval lets a model add facts to each sample but not to the results file, so the record of a run has its own file,
``<time>_run.json``. It is created when the run starts: lmms-eval names files by the second, and two runs that start in
the same second would overwrite each other's files.
"""

import atexit
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from lmms_eval_stgridpool.kept.summary import summary
from lmms_eval_stgridpool.run.evaluation import current_evaluation
from lmms_eval_stgridpool.run.failure import end_with_failure
from lmms_eval_stgridpool.run.unanswered import Verdict


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Attributes:
        record: The record that this project writes.
        results: The results file that lmms-eval writes.
        made: Folders that did not exist before, innermost first.
    """

    record: Path
    results: Path
    made: tuple[Path, ...] = ()

    @classmethod
    def claim(cls, folder: Path, time: str) -> "RunFiles":
        """Reserve the names of the files.

        Args:
            folder: Folder that lmms-eval will write to.
            time: Beginning of the names.

        Raises:
            FileExistsError: If another run uses the names.
        """
        made = tuple(one for one in (folder, *folder.parents) if not one.exists())
        files = cls(record=folder / f"{time}_run.json", results=folder / f"{time}_results.json", made=made)
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

    def give_up(self) -> None:
        """Remove the record and the folders made for it, as far as they are empty: the run has no results."""
        self._release()
        for folder in self.made:
            if any(folder.iterdir()):
                break
            folder.rmdir()

    def _refuse(self) -> None:
        raise FileExistsError(
            f"another run that started in the same second writes {self.results}: start this one again, or give it a "
            "different --output_path"
        )

    def _release(self) -> None:
        """Remove the record if the run ends before writing it."""
        if self.record.exists() and not self.record.stat().st_size:
            self.record.unlink()


def end_run(record: Mapping[str, Any], verdict: Verdict, files: RunFiles | None) -> None:
    """Log a summary, write the record, and arrange for `conclude` to be called at the end of the process.

    Args:
        record: The record, see `run_record`.
        verdict: How many questions are unanswered.
        files: The files of the run, or None to write nothing.
    """
    for line in summary(record):
        logger.info(line)
    if files is not None:
        files.write(record)
    evaluation = current_evaluation()
    if evaluation is not None and evaluation.command_line is not None:
        atexit.register(conclude, verdict, None if files is None else files.results)
    elif verdict.failed:
        logger.error(_with_guesses(verdict))


def conclude(verdict: Verdict, results: Path | None) -> None:
    """Mark the results of a run with unanswered questions or damaged videos, and say so below lmms-eval's table.

    The process ends with status 1 if the run has failed, or if lmms-eval has not written its results.

    Args:
        verdict: How many questions are unanswered.
        results: The file that lmms-eval should have written by now, or None.
    """
    if results is not None and not results.exists():
        logger.critical(f"lmms-eval has not written {results}: see its messages above")
        end_with_failure()
    elif results is not None:
        logger.info(f"results: {results}")
        mark(results, verdict)
    if verdict.damaged_videos:
        logger.warning(verdict.damage)
    if verdict.failed:
        logger.log("CRITICAL" if verdict.run_failed else "ERROR", _with_guesses(verdict))
    if verdict.run_failed:
        end_with_failure()


def _with_guesses(verdict: Verdict) -> str:
    return (
        f"{verdict}. Some of lmms-eval's own tasks score a missing answer as a guess; the tasks of custom_tasks count "
        "it as wrong."
    )


def mark(results: Path, verdict: Verdict) -> None:
    """Note a failed run, unanswered questions and damaged videos, if any, at the beginning of a results file."""
    note: dict[str, Any] = {"run_failed": str(verdict)} if verdict.run_failed else {}
    if verdict.failed:
        note["unanswered"] = {"questions": verdict.failed, "of": verdict.asked, "reasons": dict(verdict.kinds)}
    if verdict.damaged_videos:
        note["damaged_videos"] = dict(verdict.damaged_videos)
    if note:
        _replace(results, note | json.loads(results.read_text(encoding="utf-8")))


def _replace(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
    beside.replace(path)
