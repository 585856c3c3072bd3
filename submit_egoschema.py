#!/usr/bin/env python3
"""Check an EgoSchema submission, post it to the validation server and report the scores.

The file is a JSON object from question id to the index of the chosen option, 0 to 4; the task `egoschema_submission` of
custom_tasks/ writes it. Nothing is sent unless the whole file is in order. Server errors (5xx), refused connections and
timeouts are tried again, waiting twice as long each time; a refusal (4xx) never is, since the same file would be
refused again. Proxies are taken from the environment, passwords from nowhere. The exit status is 0 only if scores came
back (with --dry-run: if the file is in order), and 130 after Ctrl-C.

Source: https://github.com/egoschema/EgoSchema
"""

import argparse
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

URL = "https://validation-server.onrender.com/api/upload/"
NUM_QUESTIONS = 5031
CACHED_QUESTIONS = Path("data/egoschema/questions.json")
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
LONGEST_WAIT = 60.0
LARGEST_ANSWER = 100_000  # bytes; the server's answer has two lines
MOST_PRINTED = 2_000  # characters of an answer without scores
SCORE = re.compile(
    r"\b([A-Za-z][A-Za-z0-9 ]{0,99}):\s{0,9}(\d{1,9}) correct, (\d{1,9}) wrong, (\d{1,9}) missing, (\d{1,9}) invalid, "
    r"accuracy: (\d{1,3}(?:\.\d{1,20})?)"
)  # every repetition has an end, so that no answer takes long to search


class SubmissionError(Exception):
    """The file is invalid, or the server returned no scores; the message names the repair."""


@dataclass
class Answer:
    """The server's answer so far; a thread fills it in.

    Attributes:
        status: The HTTP status; None until it has arrived.
        body: The first bytes of the text, at most `LARGEST_ANSWER`.
        is_whole: Whether that is all of the text.
        error: What went wrong on the way.
    """

    status: int | None = None
    body: bytes = b""
    is_whole: bool = False
    error: Exception | None = None

    @property
    def text(self) -> str:
        """Return the text of the answer received so far."""
        return self.body.decode("utf-8", errors="replace")


@dataclass
class Progress:
    """The message about the submission when the command ends early."""

    sent: str = "nothing was sent"


def say(text: str, file: Any = None) -> None:
    """Print `text`, which may hold a stranger's words, without control characters or ones that the terminal lacks."""
    file = file or sys.stdout
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    encoding = file.encoding or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)


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


def post_once(url: str, content: bytes, seconds: float) -> Answer:
    """Post `content`, and return what the server answers within `seconds`, even if the answer is incomplete by then.

    A socket's timeout restarts with every byte, so a slow server could exceed any timeout. A thread therefore receives
    the answer, and is abandoned after `seconds`.
    """
    answer, done, is_over = Answer(), threading.Event(), threading.Event()

    def exchange() -> None:
        try:
            with requests.Session() as session:
                # Not session.post(): it takes a password from .netrc, and reads the whole text of a redirection.
                request = requests.Request("POST", url, data=content, headers=HEADERS).prepare()
                settings = session.merge_environment_settings(url, {}, True, None, None)  # proxies, certificates
                with session.get_adapter(url).send(request, timeout=seconds, **settings) as response:
                    answer.status = response.status_code
                    while not is_over.is_set() and len(answer.body) < LARGEST_ANSWER:
                        piece = response.raw.read1(LARGEST_ANSWER - len(answer.body), decode_content=False)
                        answer.body += piece
                        if not piece:
                            answer.is_whole = True
                            break
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            answer.error = error
        finally:
            done.set()

    threading.Thread(target=exchange, daemon=True).start()
    try:
        done.wait(seconds)
    finally:
        is_over.set()
    return Answer(is_whole=answer.is_whole, error=answer.error, status=answer.status, body=answer.body)


def post(url: str, content: bytes, arguments: argparse.Namespace, wait: Callable[[float], None]) -> Answer:
    """Post, and retry until the server answers without a server error.

    Args:
        url: The validation server.
        content: The submission.
        arguments: The command line: `timeout` and `backoff` in seconds, and `retries`.
        wait: Called with each pause, in seconds.

    Returns:
        The server's last answer; its status is 5xx only if all attempts ended with a server error.

    Raises:
        SubmissionError: If the last attempt got no answer at all, or if the URL is not valid.
    """
    pauses: Sequence[float] = [min(arguments.backoff * 2**retry, LONGEST_WAIT) for retry in range(arguments.retries)]
    for attempt, pause in enumerate([*pauses, None], start=1):
        answer = post_once(url, content, arguments.timeout)
        if answer.status is None:
            if isinstance(answer.error, ValueError):
                raise SubmissionError(str(answer.error))
            failure = f"no answer from {url}: {answer.error or f'timed out after {arguments.timeout:g} s'}"
        elif answer.status < 500 or pause is None:
            return answer
        else:
            failure = f"{url} answered with status {answer.status}"
        if pause is not None:
            say(f"{failure}; trying again in {pause:g} s ({attempt} of {len(pauses)})", sys.stderr)
            wait(pause)
    raise SubmissionError(f"{failure} (tried {attempt} times)")


def read_scores(text: str) -> dict[str, dict[str, float]]:
    """Find the scores in the server's answer: one line for all questions, one for the 500 whose answers are public.

    The accuracy is 0 to 1 or in percent, whichever agrees with the counts.

    Returns:
        By the server's name of each set: how many are correct, wrong, missing and invalid, and the accuracy, 0 to 1.
    """
    scores = {}
    for name, *numbers, accuracy in SCORE.findall(text.replace("\\n", "\n")):
        counts: dict[str, float] = dict(zip(("correct", "wrong", "missing", "invalid"), map(int, numbers), strict=True))
        share = counts["correct"] / max(1, sum(counts.values()))
        fraction = min(float(accuracy), float(accuracy) / 100, key=lambda one: abs(one - share))
        if fraction <= 1:
            scores[name.strip()] = counts | {"accuracy": fraction}
    return scores


def check_output(path: Path) -> None:
    """Make sure that a file can be written at `path`, before anything is sent.

    Raises:
        SubmissionError: If it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise SubmissionError(f"--output {path}: must be a file, is something else")
        if path.exists():
            path.open("ab").close()
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise SubmissionError(f"--output {path}: cannot be written: {error.strerror}") from error


def submit(arguments: argparse.Namespace, wait: Callable[[float], None], progress: Progress) -> None:
    """Check, post, save and report.

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
    say(f"{arguments.f}: {len(answers)} answers, in order ({against})")
    if arguments.output:
        check_output(arguments.output)
    if arguments.dry_run:
        return
    progress.sent = f"{len(answers)} answers were posted to {arguments.url}, and no answer has come"
    answer = post(arguments.url, json.dumps(answers).encode(), arguments, wait)
    progress.sent = f"{len(answers)} answers were posted to {arguments.url}, which answered with status {answer.status}"
    record = {"file": str(arguments.f), "url": arguments.url, "status": answer.status, "whole": answer.is_whole}
    record["answer"] = answer.text
    save(arguments.output, record)  # before anything can fail: the server may have accepted the submission
    scores = read_scores(answer.text) if answer.status == 200 else {}
    say(f"{arguments.url} answered with status {answer.status}")
    report(scores, answer)
    save(arguments.output, record | {"scores": scores})
    if not scores:
        raise SubmissionError("the server gave no scores; its answer is printed above, and the submission is unchanged")


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


def between(low: float, high: float, kind: type = float) -> Callable[[str], float]:
    """Return a reader of numbers from `low` to `high` for `argparse`."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"must be a number from {low:g} to {high:g}, got {text!r}; nothing was sent"
            )
        return value

    return read


def server(text: str) -> str:
    """Read a URL for `argparse`."""
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.username is None:
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be http[s]://HOST/..., without a password, got {text!r}; nothing was sent")


def file_path(text: str) -> Path:
    """Read a path for `argparse`; an empty one would be the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a path, got an empty text; is it a shell variable that is not set?")
    return Path(text)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line `argv`, without the program's name; None takes that of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--f", type=file_path, required=True, metavar="FILE", help="the submission")
    parser.add_argument(
        "--questions",
        type=file_path,
        metavar="FILE",
        help=f"JSON with the ids to answer (EgoSchema's questions.json or subset_answers.json); {CACHED_QUESTIONS} is "
        f"taken if it exists; with neither, the file must hold {NUM_QUESTIONS} answers",
    )
    parser.add_argument("--dry-run", action="store_true", help="check the file and send nothing")
    parser.add_argument("--url", type=server, default=URL, help="validation server (default: %(default)s)")
    parser.add_argument("--output", type=file_path, metavar="FILE", help="also write the answer here, as JSON")
    count, pause, limit = between(0, 100, int), between(0, 3600), between(0.1, 3600)
    parser.add_argument("--retries", type=count, default=6, help="tries after the first (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=limit, default=120, help="seconds for a whole try, 0.1 to 3600 (default: %(default)s)"
    )
    parser.add_argument("--backoff", type=pause, default=5, help="seconds before the second try (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, wait: Callable[[float], None] = time.sleep) -> int:
    """Run the command and return its exit status: 0, 1 after a message on standard error, 130 after Ctrl-C.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
        wait: Called with each wait between tries, in seconds.
    """
    arguments, progress = parse_arguments(argv), Progress()
    try:
        submit(arguments, wait, progress)
    except (SubmissionError, OSError) as error:
        say(f"error: {error}\n{progress.sent}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        say(f"\ninterrupted: {progress.sent}", sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
