"""The journal: every answer is written down as soon as it is known, so that a run that dies loses nothing.

A folder holds one file per process that ever wrote into it. Each line is an answer with the key of its question. At the
start all files are read, whatever number of processes wrote them; a last line that was torn by a crash is skipped.

lmms-eval's own ``--use_cache`` stores nothing before the last question is answered.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loguru import logger


def answer_key(facts: Mapping[str, Any]) -> str:
    """The name of a question: a digest of all that its answer depends on.

    Args:
        facts: Task, document, prompt, generation arguments, checkpoint, compressor, identity of the videos, ...; JSON
            values, or objects whose text says what they are.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def file_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What tells a file from another one of its name: path, size in bytes and time of the last change in ns."""
    try:
        status = os.stat(path)
    except OSError:
        return {"path": os.fspath(path)}
    return {"path": os.fspath(path), "size": status.st_size, "changed_ns": status.st_mtime_ns}


def video_identity(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What tells a video from another one of its name: `file_identity` of the file, or of the pictures in a folder."""
    video = Path(path)
    return [file_identity(file) for file in (sorted(video.glob("*")) if video.is_dir() else [video])]


def checkpoint_version(folder_or_name: str, config: Any) -> str | None:
    """What tells a checkpoint from another one of its name: a digest of its files, or the commit on the hub.

    Args:
        folder_or_name: The checkpoint as the user names it.
        config: Its configuration, as transformers loaded it.
    """
    folder = Path(folder_or_name)
    if not folder.is_dir():
        return getattr(config, "_commit_hash", None)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    return answer_key({"files": [file_identity(file) for file in files]})


class Journal:
    """Answers of this run and of earlier ones.

    Args:
        folder: Where the files lie; it is made if it is missing.
        rank: Number of this process, for the name of its file.

    Raises:
        OSError: If the folder cannot be made or read.
    """

    def __init__(self, folder: str | os.PathLike[str], rank: int) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.strftime("%Y%m%d_%H%M%S")
        self._path = self.folder / f"{started}_rank{rank}_{uuid.uuid4().hex[:8]}.jsonl"
        self._answers = {key: answer for file in sorted(self.folder.glob("*.jsonl")) for key, answer in _lines(file)}
        self._is_writable = True
        self._is_begun = False

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Any:
        """The answer called `key`, or None."""
        return self._answers.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Write an answer, a JSON value, down for good: it is on the disk when this returns.

        If the disk is full the run goes on without the journal and says so once.
        """
        self._answers[key] = answer
        if not self._is_writable:
            return
        line = json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n"
        try:
            with open(self._path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            if not self._is_begun:
                self._is_begun = True
                _sync_folder(self.folder)
        except OSError as error:
            self._is_writable = False
            logger.error(f"answers are no longer written to {self.folder}, the run goes on without: {error}")


def _sync_folder(folder: Path) -> None:
    """Put the names of its files on the disk: a new file's name may be lost in a power failure, synced or not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        logger.debug(f"the file system of {folder} cannot sync folders")
    finally:
        os.close(descriptor)


def _lines(file: Path) -> list[tuple[str, Any]]:
    """Key and answer of every whole line of a file; a damaged one is left out."""
    answers = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
            answers.append((record["key"], record["answer"]))
        except (ValueError, TypeError, KeyError):
            logger.warning(f"line {number} of {file} is damaged, its question is asked again")
    return answers
