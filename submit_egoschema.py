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
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stgridpool.egoschema.console import say
from stgridpool.egoschema.server import URL, Attempts
from stgridpool.egoschema.submission_file import NUM_QUESTIONS, SubmissionError
from stgridpool.egoschema.submit import CACHED_QUESTIONS, Progress, check_url, submit


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
        check_url(text)
    except SubmissionError as error:
        raise argparse.ArgumentTypeError(f"{str(error).removeprefix('the URL ')}; nothing was sent") from error
    return text


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
    parser.add_argument(
        "--retries", type=count, default=Attempts.retries, help="tries after the first (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=limit,
        default=Attempts.timeout,
        help="seconds for a whole try, 0.1 to 3600 (default: %(default)s)",
    )
    parser.add_argument(
        "--backoff", type=pause, default=Attempts.backoff, help="seconds before the second try (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, wait: Callable[[float], None] = time.sleep) -> int:
    """Run the command and return its exit status: 0, 1 after a message on standard error, 130 after Ctrl-C.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
        wait: Called with each wait between tries, in seconds.
    """
    arguments, progress = parse_arguments(argv), Progress()
    try:
        submit(
            arguments.f,
            arguments.url,
            Attempts(arguments.timeout, arguments.retries, arguments.backoff),
            progress,
            wait=wait,
            questions=arguments.questions,
            output=arguments.output,
            dry_run=arguments.dry_run,
        )
    except (SubmissionError, OSError) as error:
        say(f"error: {error}\n{progress.sent}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        say(f"\ninterrupted: {progress.sent}", sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
