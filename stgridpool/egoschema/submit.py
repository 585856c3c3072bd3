"""Check a submission, post it, save what the server answers, and report the scores.

Nothing is sent unless the whole file is in order, and the answer is saved before anything else can fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from stgridpool.egoschema.console import say
from stgridpool.egoschema.server import Answer, Attempts, post, read_scores
from stgridpool.egoschema.submission_file import SubmissionError, check, read_json, read_question_ids

CACHED_QUESTIONS = Path("data/egoschema/questions.json")
MOST_PRINTED = 2_000  # characters of an answer without scores


@dataclass
class Progress:
    """The message about the submission when the command ends early."""

    sent: str = "nothing was sent"


def check_output(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Make sure that a file can be written at `path`, before anything is sent.

    Args:
        path: The file.
        inputs: Files that it must not replace.

    Raises:
        SubmissionError: If it cannot.
    """
    try:
        for one in inputs:
            if path.exists() and one.exists() and path.samefile(one):
                raise SubmissionError(f"--output {path}: would replace {one}, which is read; choose another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise SubmissionError(f"--output {path}: must be a file, is something else")
        if path.exists():
            path.open("ab").close()
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise SubmissionError(f"--output {path}: cannot be written: {error.strerror}") from error


def submit(
    file: Path,
    url: str,
    attempts: Attempts,
    progress: Progress,
    *,
    wait: Callable[[float], None],
    questions: Path | None = None,
    output: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Check, post, save and report.

    Args:
        file: The submission.
        url: The validation server.
        attempts: How often it is posted.
        progress: Updated with what has been sent.
        wait: Called with each pause between attempts, in seconds.
        questions: List of the questions to answer, see `read_question_ids`; by default `CACHED_QUESTIONS`, if it
            exists.
        output: JSON file for the server's answer.
        dry_run: Whether to send nothing.

    Raises:
        SubmissionError: If the URL or the file is not in order, or no scores came back.
    """
    check_url(url)
    answers = _checked_answers(file, questions or (CACHED_QUESTIONS if CACHED_QUESTIONS.is_file() else None))
    if output:
        check_output(output, [file, *([questions] if questions else []), CACHED_QUESTIONS])
    if dry_run:
        return
    progress.sent = f"{len(answers)} answers were posted to {url}, and no answer has come"
    answer = post(url, json.dumps(answers).encode(), attempts, wait)
    progress.sent = f"{len(answers)} answers were posted to {url}, which answered with status {answer.status}"
    record = {"file": str(file), "url": url, "status": answer.status, "whole": answer.is_whole, "answer": answer.text}
    save(output, record)  # before anything can fail: the server may have accepted the submission
    scores = read_scores(answer.text) if answer.status == 200 else {}
    say(f"{url} answered with status {answer.status}")
    report(scores, answer)
    save(output, record | {"scores": scores})
    if not scores:
        raise SubmissionError("the server gave no scores; its answer is printed above, and the submission is unchanged")


def _checked_answers(file: Path, questions: Path | None) -> dict[str, int]:
    """Read the answers of a submission, check them against the list of questions if there is one, and say so.

    Raises:
        SubmissionError: If they are not in order.
    """
    expected = read_question_ids(questions) if questions else None
    content = read_json(file)
    try:
        answers = check(content, expected)
    except SubmissionError as error:
        raise SubmissionError(f"{file}: {error}") from error
    against = f"against {questions}" if questions else "ids not checked: no list of questions"
    say(f"{file}: {len(answers)} answers, in order ({against})")
    return answers


def check_url(url: str) -> None:
    """Check the address of a server.

    Raises:
        SubmissionError: If it is not ``http[s]://HOST/...``, or contains a user name.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        is_valid = False
    if not is_valid:
        raise SubmissionError(f"the URL must be http[s]://HOST/..., without a password, got {url!r}")


def save(path: Path | None, record: dict[str, Any]) -> None:
    """Write `record` to `path`, if one is given."""
    if path:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def report(scores: dict[str, dict[str, float]], answer: Answer) -> None:
    """Print the scores, or the answer itself if it has none."""
    for name, score in scores.items():
        say(
            f"{name}: {100 * score['accuracy']:.2f} % ({score['correct']} correct, {score['wrong']} wrong, "
            f"{score['missing']} missing, {score['invalid']} invalid)"
        )
    if not scores:
        more = f"\n... ({len(answer.text)} characters)" if len(answer.text) > MOST_PRINTED else ""
        say(answer.text[:MOST_PRINTED] + more)
    if not answer.is_whole:
        say(f"the answer was cut off after {len(answer.body)} bytes: {answer.error or 'it was too long or too slow'}")
