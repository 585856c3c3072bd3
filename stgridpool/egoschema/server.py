"""The validation server, which answers a submission with its scores.

Server errors (5xx), refused connections and timeouts are tried again, waiting twice as long each time; a refusal (4xx)
never is, since the same file would be refused again. Proxies are taken from the environment, passwords from nowhere.

Source: https://github.com/egoschema/EgoSchema
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import requests
import urllib3

from stgridpool.egoschema.console import say
from stgridpool.egoschema.submission_file import SubmissionError

URL = "https://validation-server.onrender.com/api/upload/"
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
LONGEST_WAIT = 60.0
LARGEST_ANSWER = 100_000  # bytes; the server's answer has two lines
SCORE = re.compile(
    r"\b([A-Za-z][A-Za-z0-9 ]{0,99}):\s{0,9}(\d{1,9}) correct, (\d{1,9}) wrong, (\d{1,9}) missing, (\d{1,9}) invalid, "
    r"accuracy: (\d{1,3}(?:\.\d{1,20})?)"
)  # every repetition has an end, so that no answer takes long to search


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


@dataclass(frozen=True)
class Attempts:
    """How often a submission is posted.

    Attributes:
        timeout: Seconds for a whole attempt.
        retries: Attempts after the first one.
        backoff: Seconds before the second attempt, doubled with each further one, up to `LONGEST_WAIT`.
    """

    timeout: float = 120
    retries: int = 6
    backoff: float = 5


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
                # Proxies and certificates:
                settings: dict[str, Any] = {**session.merge_environment_settings(url, {}, True, None, None)}
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


def post(url: str, content: bytes, attempts: Attempts, wait: Callable[[float], None]) -> Answer:
    """Post, and retry until the server answers without a server error.

    Args:
        url: The validation server.
        content: The submission.
        attempts: How often, and how long each may take.
        wait: Called with each pause, in seconds.

    Returns:
        The server's last answer; its status is 5xx only if all attempts ended with a server error.

    Raises:
        SubmissionError: If the last attempt got no answer at all, or if the URL is not valid.
    """
    pauses: Sequence[float] = [min(attempts.backoff * 2**retry, LONGEST_WAIT) for retry in range(attempts.retries)]
    for attempt, pause in enumerate([*pauses, None], start=1):
        answer = post_once(url, content, attempts.timeout)
        if answer.status is None:
            if isinstance(answer.error, ValueError):
                raise SubmissionError(str(answer.error))
            failure = f"no answer from {url}: {answer.error or f'timed out after {attempts.timeout:g} s'}"
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
