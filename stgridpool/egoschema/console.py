"""What a submission prints, which may hold a server's words."""

from __future__ import annotations

import sys
from typing import TextIO


def say(text: str, file: TextIO | None = None) -> None:
    """Print `text`, which may hold a stranger's words, without control characters or ones that the terminal lacks.

    Args:
        text: One or more lines.
        file: Standard output by default.
    """
    file = file or sys.stdout
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    encoding = file.encoding or "utf-8"
    file.write(shown.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    file.flush()
