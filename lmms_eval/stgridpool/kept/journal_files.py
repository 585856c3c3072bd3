"""The files of the journal: an answer is on the disk as soon as it is known, so that a run that dies loses nothing.

A folder holds one file per process that ever wrote into it. Each line is an answer with the key of its question, the
code that found it, and a checksum. At the start all files are read, whatever number of processes wrote them; lines that
a crash has torn, and answers that other code found, are skipped.

lmms-eval's own ``--use_cache`` stores nothing before the last question is answered.
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

_FOR_PEOPLE = "commit"  # of the code that found an answer; two commits may hold the same code
_OLD = "in version 0.1's format, without a checksum"
_MOST_NAMED = 5


@dataclass(frozen=True)
class Kept:
    """An answer in the journal.

    Attributes:
        answer: A JSON value.
        is_of_other_code: Whether other code found it.
        place: File and line that it was read from; empty if it is of this run.
    """

    answer: Any
    is_of_other_code: bool = False
    place: str = ""


class JournalFiles:
    """Answers of this run and of earlier ones.

    Args:
        folder: Where the files lie; it is made if it is missing.
        rank: Number of this process, for the name of its file; rank 0 says what it skips.
        code: What finds the answers of this run, as `code_version` says it.
        takes_other_code: Whether to take answers that other code has found, where there is none of this code.

    Raises:
        ValueError: If `folder` is empty.
        OSError: If the folder cannot be made, read or written.
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
        """The answer called `key`, or None."""
        return self._answers.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Write an answer, a JSON value, down for good: it is on the disk when this returns.

        If it cannot be written now, because the disk is full for instance, it is kept and written with the next one.
        """
        self._answers[key] = Kept(answer)
        self._waiting.append(encode_line({"key": key, "answer": answer, "code": self._code}))
        self.flush()

    def flush(self) -> int:
        """Try to write the answers that wait. It is said once when writing fails, and once when it works again.

        Returns:
            The number of answers that still wait.
        """
        if not self._waiting:
            return 0
        try:
            self._append(b"".join(self._waiting))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                atexit.register(self.flush)
                logger.error(f"answers cannot be written to {self.folder}; they are kept and tried again: {error}")
            return len(self._waiting)
        if self._has_failed:
            self._has_failed = False
            atexit.unregister(self.flush)
            logger.warning(f"{len(self._waiting)} answers that waited are now written to {self.folder}")
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
                f"{len(others)} answers in {self.folder} are of other code and are asked again ({named}); "
                "resume_any_version=True takes them"
            )

    def _lines(self, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Place and content of every whole line of a file; what is skipped is said once for each reason."""
        skipped: dict[str, list[int]] = defaultdict(list)
        try:
            lines = read_regular_file(file).split(b"\n")
        except OSError as error:
            self._say(f"{file} is skipped, it cannot be read: {error}")
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
            self._say(f"{file}: {_numbered(numbers)} skipped, {reason}; the questions are asked again")

    def _say(self, message: str) -> None:
        if self._says:
            logger.warning(message)


def encode_line(record: Mapping[str, Any]) -> bytes:
    """A line of the journal: the record as a JSON object, and the checksum of its text without it."""
    text = json.dumps(record)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def decode_line(line: bytes) -> dict[str, Any]:
    """The record in a line of the journal: key, answer, and the code that found it.

    Raises:
        ValueError: If the line is damaged or of another format; the message says which.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("damaged") from error
    if not isinstance(record, dict):
        raise ValueError("of the wrong shape")
    checksum = record.pop("crc32", None)
    if checksum is None and record.keys() == {"key", "answer"}:
        raise ValueError(_OLD)
    if checksum != f"{zlib.crc32(json.dumps(record).encode()):08x}":
        raise ValueError("damaged")
    if not (isinstance(record.get("key"), str) and "answer" in record and isinstance(record.get("code"), dict)):
        raise ValueError("of the wrong shape")
    return record


def _probe(folder: Path) -> None:
    """Make sure that files can be written.

    Raises:
        OSError: If not.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"resume_dir must be a folder that can be written, and {folder} cannot: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Put the names of its files on the disk: a new file's name may be lost in a power failure, synced or not."""
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
