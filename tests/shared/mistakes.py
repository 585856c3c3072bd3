"""Mistakes in command lines, and the line that must be said about each."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def says(expected: str, line: str) -> bool:
    """Return whether `line` is as expected, where "..." stands for any text."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), line) is not None


def make_all(
    code: str, mistakes: Mapping[str, tuple[Sequence[str], str]], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Let `code`, in a process of its own and in `folder`, read the words of all mistakes as JSON and make them.

    What the tests' own process has imported, such as torch, is not there.
    """
    return subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([words for words, _ in mistakes.values()]),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
