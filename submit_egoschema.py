#!/usr/bin/env python3
"""Check an EgoSchema submission, post it to the validation server and report the scores.

The file is a JSON object from question id to the index of the chosen option, 0 to 4; the task `egoschema_submission` of
custom_tasks/ writes it. Nothing is sent unless the whole file is in order. Server errors (5xx), refused connections and
timeouts are tried again, waiting twice as long each time; a refusal (4xx) never is, since the same file would be
refused again. The exit status is 0 only if scores came back (with --dry-run: if the file is in order).

Source: https://github.com/egoschema/EgoSchema
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import requests

URL = "https://validation-server.onrender.com/api/upload/"
NUM_QUESTIONS = 5031
CACHED_QUESTIONS = Path("data/egoschema/questions.json")
LONGEST_WAIT = 60.0
SCORE = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9 ]*):\s*(?P<correct>\d+) correct, (?P<wrong>\d+) wrong, (?P<missing>\d+) missing, "
    r"(?P<invalid>\d+) invalid, accuracy: (?P<accuracy>\d+(?:\.\d+)?)"
)


class SubmissionError(Exception):
    """The file is not in order, or the server gave no scores; the message says what to do."""


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: The file.

    Returns:
        What the file holds.

    Raises:
        SubmissionError: If the file cannot be read, is not JSON, or an object in it names a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            raise SubmissionError(f"{path}: named twice: {shorten(key for key in content if keys.count(key) > 1)}")
        return content

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except OSError as error:
        raise SubmissionError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SubmissionError(f"{path}: is not JSON: {error}") from error


def shorten(items: Iterable[Any], most: int = 5) -> str:
    """List the first few items, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def read_question_ids(path: Path) -> set[str]:
    """Read which questions have to be answered.

    Args:
        path: JSON: a list of ids, a list of objects with `q_uid` (EgoSchema's questions.json) or `video_idx`, or an
            object whose keys are ids (EgoSchema's subset_answers.json).

    Returns:
        The ids.

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
        answers: What the file holds.
        expected: Ids of the questions to answer, or None where they are not known: then only their number is checked.

    Returns:
        The answers, unchanged: id to index, 0 to 4.

    Raises:
        SubmissionError: If they are not an object, an answer is no integer from 0 to 4, an id is missing or unknown, or
            their number is wrong.
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


def post(
    url: str, answers: dict[str, int], timeout: float, pauses: Sequence[float], wait: Callable[[float], None]
) -> requests.Response:
    """Post the answers until the server gives an answer other than a server error.

    Args:
        url: The validation server.
        answers: Id to index.
        timeout: Longest wait for the server, in seconds.
        pauses: Seconds before the second, third, ... try; after the last of them nothing more is tried.
        wait: Called with each pause.

    Returns:
        The server's last answer, whatever its status: 5xx only if every try ended so.

    Raises:
        SubmissionError: If the last try brought no answer at all.
    """
    for attempt, pause in enumerate([*pauses, None], start=1):
        try:
            response = requests.post(url, json=answers, timeout=timeout, allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            failure = f"no answer from {url}: {error}"
        else:
            if response.status_code < 500 or pause is None:
                return response
            failure = f"{url} answered with status {response.status_code}"
        if pause is not None:
            print(f"{failure}; trying again in {pause:g} s ({attempt} of {len(pauses)})", file=sys.stderr)
            wait(pause)
    raise SubmissionError(f"{failure} (tried {attempt} times)")


def read_scores(text: str) -> dict[str, dict[str, float]]:
    """Find the scores in the server's answer: one line for all questions, one for the 500 whose answers are public.

    Args:
        text: The server's answer.

    Returns:
        By the server's name of each set: how many are correct, wrong, missing and invalid, and the accuracy, 0 to 1.
    """
    scores = {}
    for match in SCORE.finditer(text.replace("\\n", "\n")):
        counts: dict[str, float] = {key: int(match[key]) for key in ("correct", "wrong", "missing", "invalid")}
        scores[match["name"].strip()] = counts | {"accuracy": float(match["accuracy"])}
    return scores


def submit(arguments: argparse.Namespace, wait: Callable[[float], None]) -> None:
    """Check, post and report.

    Args:
        arguments: The parsed command line.
        wait: Called with each wait between tries, in seconds.

    Raises:
        SubmissionError: If the file is not in order, or no scores came back.
    """
    questions = arguments.questions or (CACHED_QUESTIONS if CACHED_QUESTIONS.is_file() else None)
    expected = read_question_ids(questions) if questions else None
    content = read_json(arguments.f)
    try:
        answers = check(content, expected)
    except SubmissionError as error:
        raise SubmissionError(f"{arguments.f}: {error}") from error
    against = f"against {questions}" if questions else "ids not checked: no list of questions"
    print(f"{arguments.f}: {len(answers)} answers, in order ({against})")
    if arguments.dry_run:
        return

    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pauses = [min(arguments.backoff * 2**retry, LONGEST_WAIT) for retry in range(arguments.retries)]
    response = post(arguments.url, answers, arguments.timeout, pauses, wait)
    scores = read_scores(response.text) if response.status_code == 200 else {}
    print(f"{arguments.url} answered with status {response.status_code}")
    for name, score in scores.items():
        print(
            f"{name}: {100 * score['accuracy']:.2f} % ({score['correct']} correct, {score['wrong']} wrong, "
            f"{score['missing']} missing, {score['invalid']} invalid)"
        )
    if not scores:
        print(response.text)
    if arguments.output:
        record = {"file": str(arguments.f), "url": arguments.url, "status": response.status_code}
        record |= {"scores": scores, "answer": response.text}
        arguments.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if not scores:
        raise SubmissionError("the server gave no scores; its answer is printed above, and the submission is unchanged")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The options.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--f", type=Path, required=True, metavar="FILE", help="the submission")
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help=f"JSON with the ids to answer (EgoSchema's questions.json or subset_answers.json); {CACHED_QUESTIONS} is "
        f"taken if it exists; with neither, the file must hold {NUM_QUESTIONS} answers",
    )
    parser.add_argument("--dry-run", action="store_true", help="check the file and send nothing")
    parser.add_argument("--url", default=URL, help="validation server (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the server's answer here, as JSON")
    parser.add_argument("--retries", type=int, default=6, help="tries after the first (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds to wait for an answer (default: %(default)s)"
    )
    parser.add_argument("--backoff", type=float, default=5, help="seconds before the second try (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, wait: Callable[[float], None] = time.sleep) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
        wait: Called with each wait between tries, in seconds.

    Returns:
        The exit status: 0, or 1 after a message on standard error.
    """
    try:
        submit(parse_arguments(argv), wait)
    except (SubmissionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
