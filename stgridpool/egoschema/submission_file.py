"""The file of a submission: a JSON object from question id to the index of the chosen option, 0 to 4.

Source: https://github.com/egoschema/EgoSchema
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NUM_QUESTIONS = 5031


class SubmissionError(Exception):
    """The file is invalid, or the server returned no scores; the message names the repair."""


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SubmissionError: If it cannot be read, is not JSON, nests too deeply, or an object in it names a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise SubmissionError(f"{path}: named twice: {shorten(key for key, count in counts.items() if count > 1)}")
        return content

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except OSError as error:
        raise SubmissionError(f"{path}: cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise SubmissionError(f"{path}: must be an object from question id to answer, is nested too deeply") from error
    except ValueError as error:
        raise SubmissionError(f"{path}: is not JSON: {error}") from error


def shorten(items: Iterable[Any], most: int = 5) -> str:
    """List the first few items, each cut to 80 characters, and how many more there are."""
    texts = [str(item)[:80] for item in items]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def read_question_ids(path: Path) -> set[str]:
    """Read the ids of the questions to answer.

    Args:
        path: JSON: a list of ids, a list of objects with `q_uid` (EgoSchema's questions.json) or `video_idx`, or an
            object whose keys are ids (EgoSchema's subset_answers.json).

    Raises:
        SubmissionError: If the file is none of these.
    """
    content = read_json(path)
    entries = list(content) if isinstance(content, list | dict) else []
    ids = [entry.get("q_uid", entry.get("video_idx")) if isinstance(entry, dict) else entry for entry in entries]
    questions = {question for question in ids if isinstance(question, str)}
    if not questions or len(questions) < len(ids):
        raise SubmissionError(f"{path}: must list question ids, each once: strings, or objects with q_uid or video_idx")
    return questions


def check(answers: Any, expected: set[str] | None) -> dict[str, int]:
    """Check everything about a submission that can be known before it is sent.

    Args:
        answers: The content of the file.
        expected: Ids of the questions to answer; None if they are not known, so that only their number can be checked.

    Returns:
        The answers, unchanged: id to index, 0 to 4.

    Raises:
        SubmissionError: If they are not an object, an answer is not an integer from 0 to 4, an id is missing or
            unknown, or their number is wrong.
    """
    if not isinstance(answers, dict):
        raise SubmissionError(f"must be a JSON object from question id to answer, got {type(answers).__name__}")
    bad = [f"{key}: {value!r}" for key, value in answers.items() if type(value) is not int or not 0 <= value <= 4]
    if bad:
        raise SubmissionError(f"answers must be integers from 0 to 4, got {len(bad)} others: {shorten(bad)}")
    if expected is None:
        if len(answers) != NUM_QUESTIONS:
            what = f"must answer all {NUM_QUESTIONS} questions, got {len(answers)}"
            raise SubmissionError(f"{what}; if a part is meant, name its ids with --questions")
        return answers
    missing, unknown = sorted(expected - set(answers)), sorted(set(answers) - expected)
    if missing or unknown:
        parts = [(missing, "without an answer"), (unknown, "that are not expected")]
        raise SubmissionError("; ".join(f"{len(ids)} questions {what}: {shorten(ids)}" for ids, what in parts if ids))
    return answers
