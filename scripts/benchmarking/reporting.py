"""Shared by all benchmarks: the output options and the contents of a results file."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lmms_eval_stgridpool.kept.paths import path_argument


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--output``."""
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--output", type=path_argument, metavar="FILE", help="also write them there, with their origin")


def report(
    arguments: argparse.Namespace, numbers: object, written: dict[str, object], show: Callable[[], None]
) -> None:
    """Print and write results as the options ask.

    Args:
        arguments: The parsed command line.
        numbers: What ``--json`` prints.
        written: What goes into the file, after its provenance.
        show: Prints the results for people.
    """
    if arguments.output is not None:
        arguments.output.write_text(json.dumps({**provenance(), **written}, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(numbers, indent=2))
    else:
        show()


def _without_folder(word: str) -> str:
    """Shorten an absolute path: it says nothing on another machine."""
    return Path(word).name if word.startswith("/") else word


def provenance() -> dict[str, object]:
    """Command, commit, date (UTC) and versions of a measurement."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    described = subprocess.run(git, capture_output=True, text=True, check=False)
    return {
        "command": f"python scripts/{Path(sys.argv[0]).name} {shlex.join(map(_without_folder, sys.argv[1:]))}",
        "commit": described.stdout.strip() or None,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "triton": _version("triton"),
        "processor": platform.machine(),
    }


def _version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
