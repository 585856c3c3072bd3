"""Why a run failed, for the programs that started it."""

import json
import os
import sys
import time
from pathlib import Path

CAUSE = ".cause_of_failure"
"""File in the output folder that gets the causes of a failure, a line each."""
_REPORT = "TORCHELASTIC_ERROR_FILE"
"""Variable with which torch's launcher names each rank's file for the reason why it failed."""


def is_checked_by_script() -> bool:
    """Tell whether evaluate.sh has started this run: it has checked it, and has printed the warnings."""
    return _file_of_script() is not None


def note_cause(cause: str) -> None:
    """Tell evaluate.sh and torch's launcher why the run failed; of several ranks the first counts.

    evaluate.sh puts an empty file into the folder of ``--output_path`` and ends with its first line as the last of its
    own, below the tracebacks of the launcher. Without that file nothing is written. torch's launcher, which accelerate
    uses for several processes, ends with a table of the ranks that failed, and the reason that each of them wrote.

    Args:
        cause: What happened, on which rank; it becomes one line.
    """
    line, file_of_script = " ".join(cause.split()), _file_of_script()
    if file_of_script is not None:
        with file_of_script.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    report = os.environ.get(_REPORT)
    if report and not Path(report).exists():
        Path(report).write_text(json.dumps({"message": line, "timestamp": int(time.time())}), encoding="utf-8")


def _file_of_script() -> Path | None:
    """Return the file that evaluate.sh has put into the output folder; None if it has not started this run."""
    words = sys.argv
    folder = words[words.index("--output_path") + 1] if "--output_path" in words[:-1] else None
    return None if folder is None or not (path := Path(folder, CAUSE)).is_file() else path
