"""The files of the journal: every answer is on disk as soon as it is known, so a run that dies loses nothing.

The folder has one file for each process that has ever written to it. Each line is an answer with the key of its
question, the code that computed it, and a checksum. A run reads all files when it starts, no matter how many processes
wrote them. It skips lines that a crash cut short, and answers that other code computed.

lmms-eval's own ``--use_cache`` stores nothing until the last question is answered.
"""

import atexit
import json
import os
import tempfile
import time
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from lmms_eval_stgridpool.kept.paths import make_folder, read_regular_file

_FOR_PEOPLE = "commit"  # of the code that computed an answer; two commits may have the same code
_OLD = "in version 0.1's format, without a checksum"
_MOST_NAMED = 5


@dataclass(frozen=True)
class Kept:
    """An answer in the journal.

    Attributes:
        answer: A JSON value.
        is_of_other_code: Whether other code computed it.
        place: File and line that it was read from; empty if this run computed it.
    """

    answer: Any
    is_of_other_code: bool = False
    place: str = ""


class JournalFiles:
    """Answers of this run and of earlier ones.

    Args:
        folder: Folder of the files; it is created if it is missing.
        rank: This rank, for the name of its file; only rank 0 warns about what it skips.
        code: The code that computes the answers of this run, see `code_version`.
        takes_other_code: Whether to take answers that other code computed if this code has none.

    Raises:
        ValueError: If `folder` is empty.
        OSError: If the folder cannot be created, read or written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], rank: int, code: Mapping[str, Any], takes_other_code: bool = False
    ) -> None:
        self.folder = make_folder("resume_dir", folder)
        self._code, self._says = dict(code), rank == 0
        _probe(self.folder)
        started = time.strftime("%Y%m%d_%H%M%S")
        self._path = self.folder / f"{started}_rank{rank}_{uuid.uuid4().hex[:8]}.jsonl"
        self._answers: dict[str, Kept] = {}
        self._waiting: list[bytes] = []
        self._size = 0  # of whole lines in the file
        self._has_failed = False
        self._read_all(takes_other_code)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Kept | None:
        """Return the answer called `key`, or None."""
        return self._answers.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Write an answer, a JSON value, to disk before returning.

        If it cannot be written now, for instance because the disk is full, it is kept and written with the next one.
        """
        self._answers[key] = Kept(answer)
        self._waiting.append(encode_line({"key": key, "answer": answer, "code": self._code}))
        self.flush()

    def flush(self) -> int:
        """Try to write the answers that are not on disk yet; log once when that fails, and once when it works again.

        Returns:
            The number of answers that are still not on disk.
        """
        if not self._waiting:
            return 0
        try:
            self._append(b"".join(self._waiting))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                atexit.register(self.flush)
                logger.error(f"answers cannot be written to {self.folder}; they are kept in memory for now: {error}")
            return len(self._waiting)
        if self._has_failed:
            self._has_failed = False
            atexit.unregister(self.flush)
            logger.warning(f"{len(self._waiting)} answers that were kept in memory are now written to {self.folder}")
        self._waiting.clear()
        return 0

    def _append(self, lines: bytes) -> None:
        is_new = not self._size
        with open(self._path, "ab") as file:
            if file.tell() > self._size:
                file.truncate(self._size)  # removes what a failed write left behind
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            self._size = file.tell()
        if is_new:
            _sync_folder(self.folder)

    def _read_all(self, takes_other_code: bool) -> None:
        others: dict[str, Kept] = {}
        codes: dict[str, str] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            for place, record in self._lines(file):
                key, code = record["key"], record["code"]
                if _without_commit(code) == _without_commit(self._code):
                    self._answers[key] = Kept(record["answer"], False, place)
                else:
                    others[key], codes[key] = Kept(record["answer"], True, place), _shown(code)
        others = {key: kept for key, kept in others.items() if key not in self._answers}
        if takes_other_code:
            self._answers |= others
        elif others:
            counts = Counter(codes[key] for key in others).most_common(_MOST_NAMED)
            named = "; ".join(f"{count} of {code}" for code, count in counts)
            self._say(
                f"{len(others)} answers in {self.folder} come from other code, so their questions are asked again "
                f"({named}); resume_any_version=True takes these answers"
            )

    def _lines(self, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the place and the content of every whole line of a file; warn once for each reason to skip lines."""
        skipped: dict[str, list[int]] = defaultdict(list)
        try:
            lines = read_regular_file(file).split(b"\n")
        except OSError as error:
            self._say(f"{file} is skipped because it cannot be read: {error}")
            return
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                record = decode_line(line)
            except ValueError as error:
                skipped[str(error)].append(number)
                continue
            yield f"{file}, line {number}", record
        for reason, numbers in skipped.items():
            self._say(f"{file}: {_numbered(numbers)} skipped ({reason}); the questions are asked again")

    def _say(self, message: str) -> None:
        if self._says:
            logger.warning(message)


def encode_line(record: Mapping[str, Any]) -> bytes:
    """Encode a record as a line of the journal: a JSON object with a checksum of the text of its other entries."""
    text = json.dumps(record)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def decode_line(line: bytes) -> dict[str, Any]:
    """Decode a line of the journal: key, answer, and the code that computed it.

    Raises:
        ValueError: If the line is damaged or has another format; the message says which.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("damaged") from error
    if not isinstance(record, dict):
        raise ValueError("malformed")
    checksum = record.pop("crc32", None)
    if checksum is None and record.keys() == {"key", "answer"}:
        raise ValueError(_OLD)
    if checksum != f"{zlib.crc32(json.dumps(record).encode()):08x}":
        raise ValueError("damaged")
    if not (isinstance(record.get("key"), str) and "answer" in record and isinstance(record.get("code"), dict)):
        raise ValueError("malformed")
    return record


def _probe(folder: Path) -> None:
    """Check that files can be written to a folder.

    Raises:
        OSError: If they cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"resume_dir must be a writable folder, {folder} is not: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Sync a folder: the name of a new file may be lost in a power failure even if the file itself was synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        logger.debug(f"the file system of {folder} cannot sync folders")


def _without_commit(code: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in code.items() if name != _FOR_PEOPLE}


def _shown(code: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in code.items() if name != "source")


def _numbered(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, numbers[:_MOST_NAMED]))
    more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
    return f"line {named}" if len(numbers) == 1 else f"lines {named}{more}"
