"""SHA-256 of large files, remembered from run to run, so that an unchanged checkpoint is read only once.

A digest is kept in a small file of its own in the user's cache folder. Its name is a digest of the path, the size and
the times of the last change of content and of status, so a file that was replaced is read again even if it got the
size and the modification time of the old one.
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path

from platformdirs import user_cache_path

from lmms_eval_stgridpool.kept.identity import answer_key, file_identity

_DIGEST = re.compile("[0-9a-f]{64}")


def digests_folder() -> Path:
    """Return the folder where digests are kept: a part of the user's cache folder."""
    return user_cache_path("stgridpool") / "sha256"


def file_digest(path: Path, folder: Path) -> str:
    """Compute the hex SHA-256 of a file, or look it up if the file has not changed since.

    If the folder cannot be read or written, the digest is computed every time.

    Args:
        path: The file.
        folder: Where digests are kept; it is created if it is missing.

    Raises:
        OSError: If the file cannot be read.
    """
    known = folder / _entry(path)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = known.read_text(encoding="ascii")
        if _DIGEST.fullmatch(found):
            return found
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _entry(path) == known.name:  # nobody has changed the file in the meantime
        with contextlib.suppress(OSError):
            _write(known, digest)
    return digest


def _entry(path: Path) -> str:
    place = path.resolve()
    return answer_key(file_identity(place) | {"status_changed_ns": place.stat().st_ctime_ns})


def _write(known: Path, digest: str) -> None:
    """Write a digest atomically."""
    known.parent.mkdir(parents=True, exist_ok=True)
    beside = known.with_name(f"{known.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(digest, encoding="ascii")
        beside.replace(known)
    finally:
        beside.unlink(missing_ok=True)
