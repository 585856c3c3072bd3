"""A cache on disk for the vision tower's features, so that another compressor need not decode and encode a video again.

If a method needs evidence from the vision tower, it is stored together with the features. Features with and without
evidence are different entries: a run finds those with the evidence that it needs. So are those of frames that a method
changed before the vision tower or inside it.

Each video is a safetensors file, named by a digest of everything that its features depend on: path, size and
modification time of the video file, how frames are sampled and decoded, the vision tower with its weights and dtype,
and the versions of the code involved. Any number of processes may share the folder. Writes are atomic; the oldest
entries are evicted first. A small file for each path names its newest entry, which can then serve after the video is
gone.

The files are in a subfolder of the folder that the user names. Even there, a file is deleted only if its name and a
mark inside it show that it is an entry of a cache.
"""

import fcntl
import os
import re
import stat
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loguru import logger

import stgridpool
from lmms_eval_stgridpool.kept.identity import answer_key, source_digest, video_identity
from lmms_eval_stgridpool.kept.paths import make_folder, own_folder, read_regular_file
from lmms_eval_stgridpool.videos.feature_file import DAMAGE, VideoFeatures, is_marked, pack, unpack
from stgridpool.compressor import Step
from stgridpool.elsewhere import foreign_code
from stgridpool.evidence import Need, missing_part
from stgridpool.finite import all_finite

FOLDER = "stgridpool_features"
"""Name of the cache's subfolder in the folder that the user names."""
ABANDONED_SECONDS = 3600
"""Age at which an unfinished file counts as abandoned: writing one takes seconds."""
OF_CODE = ("versions", "source")
"""Parts of a setup that identify the code."""
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_NAME = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}\.tmp")


class FeatureCache:
    """A cache of features in a folder.

    Args:
        folder: Folder that the user names; it is created if it is missing.
        limit_bytes: Size limit of the cache, in bytes.
        setup: Everything that the features of all videos of this run depend on, see `feature_setup`.
        parts: A digest of the weights of each part that the checkpoint leaves out, see `missing_part`; None if the part
            is not loaded.

    Attributes:
        folder: The cache's subfolder.
        is_writable: Whether the last entry could be written.

    Raises:
        ValueError: If `folder` is empty.
        OSError: If the subfolder cannot be created, or has files that no cache wrote.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        limit_bytes: float,
        setup: Mapping[str, Any],
        parts: Mapping[str, str | None] | None = None,
    ) -> None:
        self.folder = own_folder("feature_cache", make_folder("feature_cache", folder) / FOLDER)
        self._limit_bytes, self._setup, self._parts = limit_bytes, setup, parts or {}
        self.is_writable = True
        self._has_evicted = self._has_served_others = False

    def name(self, video: Path, needs: Collection[Need] = (), steps: Sequence[Step] = ()) -> str:
        """Name the entry for a video and for evidence about it; the name changes if either of them does.

        Args:
            video: A file or a folder of pictures.
            needs: The evidence.
            steps: Steps of a method on which the features depend; the code of methods then counts, too.
        """
        return answer_key(self._facts(needs, steps) | {"files": video_identity(video.resolve())})

    def newest(self, video: Path, needs: Collection[Need] = (), steps: Sequence[Step] = ()) -> str | None:
        """Return the name of the newest entry for a path, for a video that is gone; None if there is none.

        Other versions of the code may have made it, as it cannot be made again; a warning says so once.

        Args:
            video: Where the video was.
            needs: See `name`.
            steps: See `name`.
        """
        pointer, code = self._pointer(video, needs, steps)
        try:
            name, _, made_by = read_regular_file(pointer).decode("ascii").partition(" ")
        except (OSError, UnicodeDecodeError):
            return None
        if not _NAME.fullmatch(name) or not self._path(name).is_file():
            return None
        if made_by != code and not self._has_served_others:
            self._has_served_others = True
            logger.warning(f"features of missing videos, such as {video}, were made by other versions of the code")
        return name

    def remember(self, name: str, video: Path, needs: Collection[Need] = (), steps: Sequence[Step] = ()) -> None:
        """Make an entry the newest one for the path of its video, see `newest`; nothing happens without the entry."""
        if not self._path(name).is_file():
            return
        pointer, code = self._pointer(video, needs, steps)
        try:
            self._write(pointer, f"{name} {code}".encode("ascii"))
        except OSError as error:
            logger.error(f"{pointer} cannot be written, so {video} must not be removed: {error}")

    def _pointer(self, video: Path, needs: Collection[Need], steps: Sequence[Step]) -> tuple[Path, str]:
        """Return the file that names the newest entry for a path, and a digest of the code that makes entries."""
        facts = self._facts(needs, steps)
        code = {name: self._setup.get(name) for name in OF_CODE} | {"methods": facts.pop("methods", None)}
        facts["setup"] = {name: value for name, value in self._setup.items() if name not in OF_CODE}
        place = answer_key(facts | {"place": os.path.abspath(video)})
        return self.folder / f"{place}.newest", answer_key(code)

    def _facts(self, needs: Collection[Need], steps: Sequence[Step]) -> dict[str, Any]:
        """Collect what an entry depends on besides its video."""
        facts: dict[str, Any] = {"setup": self._setup}
        if needs:
            facts["needs"] = sorted(map(repr, needs))
        if steps:
            facts["steps"] = list(map(repr, steps))
            code = [path for step in steps for path in foreign_code(step.compressor)]
            facts["methods"] = source_digest(Path(stgridpool.__path__[0]), *code)
        used = {missing_part(need) for need in needs}
        return facts | {part: digest for part, digest in self._parts.items() if part in used}

    def get(self, name: str, needs: Collection[Need] = ()) -> VideoFeatures | None:
        """Read the entry called `name`; None if there is none, if it is damaged, or if evidence is missing.

        The file is read as a whole, so another process, even on another machine, may evict it in the meantime.
        """
        path = self._path(name)
        try:
            return unpack(name, read_regular_file(path), needs)
        except FileNotFoundError:
            return None
        except DAMAGE as error:
            logger.warning(f"{path} cannot be used, so the video is encoded again: {error!r}")
            return None

    def add(self, name: str, video: VideoFeatures) -> None:
        """Add an entry, and evict the oldest ones if there is no room.

        Features that are not finite are not stored: a later run may not have the problem that caused them. If an entry
        cannot be written, for instance because the disk is full, the run continues without it, and tries to write the
        next one. It logs once that writing failed, and once that it works again.
        """
        if not all(map(all_finite, (*video.named().values(), *video.evidence.values()))):
            return
        data = pack(name, video)
        if len(data) > self._limit_bytes:
            logger.warning(f"features of {len(data)} bytes do not fit in a cache of {self._limit_bytes:.0f} bytes")
            return
        try:
            with self._lock():
                self._make_room(len(data))
                self._write(self._path(name), data)
        except OSError as error:
            if self.is_writable:
                logger.error(f"features cannot be written to {self.folder}; the run continues without: {error}")
            self.is_writable = False
        else:
            if not self.is_writable:
                logger.warning(f"features are written to {self.folder} again")
            self.is_writable = True

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _write(self, file: Path, data: bytes) -> None:
        unfinished = file.with_name(f"{file.stem}.{uuid.uuid4().hex}.tmp")
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let only one process at a time change the folder; the lock is released even if the process is killed."""
        with open(self.folder / ".lock", "ab", opener=_open_without_waiting) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, num_bytes: int) -> None:
        """Remove files of killed processes, and evict the oldest entries until another `num_bytes` fit."""
        for file, status in self._files(_UNFINISHED):
            if time.time() - status.st_mtime > ABANDONED_SECONDS:
                file.unlink(missing_ok=True)
        entries = sorted(self._files(_ENTRY), key=lambda entry: entry[1].st_mtime_ns)
        total = sum(status.st_size for _, status in [*entries, *self._files(_UNFINISHED)])
        for file, status in entries:
            if total + num_bytes <= self._limit_bytes:
                break
            total -= status.st_size  # files that do not belong to the cache do not count
            if not is_marked(file):
                continue
            file.unlink(missing_ok=True)
            if not self._has_evicted:
                self._has_evicted = True
                logger.warning(f"{self.folder} is full: from now on the oldest features are evicted for new ones")

    def _files(self, pattern: re.Pattern[str]) -> list[tuple[Path, os.stat_result]]:
        """List regular files, without links, whose names match a pattern."""
        found = []
        for name in filter(pattern.fullmatch, os.listdir(self.folder)):
            try:
                status = os.lstat(self.folder / name)
            except FileNotFoundError:  # removed in between
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((self.folder / name, status))
        return found


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file, but refuse links, and FIFOs that nobody reads."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
