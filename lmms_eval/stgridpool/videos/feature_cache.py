"""What the vision tower gave for a video, kept on disk: another compressor then neither decodes nor encodes it again.

Evidence that a method asks the tower for is kept beside the features. Features with and without it are different
entries: a run finds those that were made for the same needs.

Each video is a safetensors file, named by a digest of all that its features depend on: the video file's path, size and
time of change, how its frames are chosen and decoded, the tower with its weights and dtype, and the code and versions
that do the work. Any number of processes may share the folder. Files appear in it whole or not at all, and those that
were written first make room for new ones.

The files lie in a folder of their own inside the one that the user names. There, too, only files are deleted that prove
to be entries of a cache: by their name, and by a mark inside them.
"""

import fcntl
import os
import re
import stat
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loguru import logger

import llava
from lmms_eval_stgridpool.kept.identity import answer_key, source_digest, video_identity
from lmms_eval_stgridpool.kept.paths import make_folder, own_folder, read_regular_file
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.versions import package_version
from lmms_eval_stgridpool.videos.feature_file import DAMAGE, VideoFeatures, is_marked, pack, unpack
from stgridpool.evidence import Need, missing_part
from stgridpool.finite import all_finite

FOLDER = "stgridpool_features"
"""Name of the cache's own folder in the one that the user names."""
FORMAT = 2  # of the entries; to be raised where they are written otherwise than before
PACKAGES = ("torch", "transformers", "open_clip_torch", "av", "decord", "pillow")
"""Packages whose versions features depend on."""
ABANDONED_SECONDS = 3600
"""Age at which a file that was never finished belongs to nobody: writing one takes seconds."""
PARTS = ("pool_head", "text_tower")
"""What `missing_part` may name: parts that count only where their evidence is asked for."""
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_UNFINISHED = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}\.tmp")


class FeatureCache:
    """Features in a folder.

    Args:
        folder: Folder that the user names; it is made if it is missing.
        limit_bytes: Most bytes of features that the cache may hold.
        setup: What the features of all videos of this run depend on, see `feature_setup`.
        parts: A digest of the weights of each part that the checkpoint leaves out, see `missing_part`; None where there
            is none.

    Attributes:
        folder: The cache's own folder in it.
        is_writable: Whether the last entry could be written.

    Raises:
        ValueError: If `folder` is empty.
        OSError: If the cache's folder cannot be made, or holds files that no cache has made.
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
        self._has_evicted = False

    def name(self, video: Path, needs: Collection[Need] = ()) -> str:
        """Name the features of a video, a file or a folder of pictures, and the evidence kept beside them.

        A video that was changed has another name, and so has one with other evidence.
        """
        facts: dict[str, Any] = {"setup": self._setup, "files": video_identity(video.resolve())}
        if needs:
            facts["needs"] = sorted(map(repr, needs))
        used = {missing_part(need) for need in needs}
        facts |= {part: digest for part, digest in self._parts.items() if part in used}
        return answer_key(facts)

    def get(self, name: str, needs: Collection[Need] = ()) -> VideoFeatures | None:
        """Read the features called `name`; None where there are none, the file is damaged, or evidence is missing.

        The file is read as a whole, so that it may be evicted meanwhile, by this machine or another one.
        """
        path = self._path(name)
        try:
            return unpack(name, read_regular_file(path), needs)
        except FileNotFoundError:
            return None
        except DAMAGE as error:
            logger.warning(f"{path} cannot be used, the video is encoded anew: {error!r}")
            return None

    def add(self, name: str, video: VideoFeatures) -> None:
        """Write features down, in place of the oldest ones if there is no room.

        Features that are not finite are left out: they would outlive what made them so. If features cannot be written,
        because the disk is full for instance, the run goes on without; the next ones are tried again. Both are said
        once.
        """
        if not all(map(all_finite, (video.features, *video.evidence.values()))):
            return
        data = pack(name, video)
        if len(data) > self._limit_bytes:
            logger.warning(f"features of {len(data)} bytes do not fit into a cache of {self._limit_bytes:.0f} bytes")
            return
        try:
            with self._lock():
                self._make_room(len(data))
                self._write(name, data)
        except OSError as error:
            if self.is_writable:
                logger.error(f"features cannot be written to {self.folder}, the run goes on without: {error}")
            self.is_writable = False
        else:
            if not self.is_writable:
                logger.warning(f"features are written to {self.folder} again")
            self.is_writable = True

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _write(self, name: str, data: bytes) -> None:
        unfinished = self.folder / f"{name}.{uuid.uuid4().hex}.tmp"
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, self._path(name))
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Only one process at a time changes the folder; the lock of one that dies is gone with it."""
        with open(self.folder / ".lock", "ab", opener=_open_without_waiting) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, num_bytes: int) -> None:
        """Remove what killed processes left behind, and the oldest features until `num_bytes` more fit in."""
        for file, status in self._files(_UNFINISHED):
            if time.time() - status.st_mtime > ABANDONED_SECONDS:
                file.unlink(missing_ok=True)
        entries = sorted(self._files(_ENTRY), key=lambda entry: entry[1].st_mtime_ns)
        total = sum(status.st_size for _, status in [*entries, *self._files(_UNFINISHED)])
        for file, status in entries:
            if total + num_bytes <= self._limit_bytes:
                break
            total -= status.st_size  # a file that is not the cache's does not count
            if not is_marked(file):
                continue
            file.unlink(missing_ok=True)
            if not self._has_evicted:
                self._has_evicted = True
                logger.warning(f"{self.folder} is full: from now on the oldest features make room for new ones")

    def _files(self, pattern: re.Pattern[str]) -> list[tuple[Path, os.stat_result]]:
        """Regular files, no links to them, whose names are of a pattern."""
        found = []
        for name in filter(pattern.fullmatch, os.listdir(self.folder)):
            try:
                status = os.lstat(self.folder / name)
            except FileNotFoundError:  # removed in between
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((self.folder / name, status))
        return found


def open_feature_cache(arguments: Arguments, identity: Mapping[str, Any] | None) -> FeatureCache | None:
    """The cache that the arguments ask for; None where they ask for none.

    Args:
        arguments: See `feature_cache` and `feature_cache_gb`.
        identity: See `VideoModel.identity`.

    Raises:
        OSError: If the folder cannot be made, or is not the cache's own.
        ValueError: If the tower's weights are offloaded.
    """
    if arguments.feature_cache is None:
        return None
    if identity is None:
        raise ValueError("feature_cache cannot be used while the vision tower is offloaded")
    setup = feature_setup(arguments, identity)
    parts = {name: identity[name] for name in PARTS}
    return FeatureCache(arguments.feature_cache, arguments.feature_cache_gb * 1e9, setup, parts)


def feature_setup(arguments: Arguments, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What the features of a run depend on, besides the video: frames, tower, and the code that reads and encodes.

    Towers of one name differ where they were trained further, so that all weights count. Of our own code ``llava``
    counts and what loads videos: features stay valid while compressors are written.

    Args:
        arguments: How videos are read.
        identity: See `VideoModel.identity`; of it, all but `PARTS`.
    """
    sources = [Path(llava.__path__[0]), Path(__file__).with_name("prefetch.py")]
    return {
        "format": FORMAT,
        "versions": {name: package_version(name) for name in PACKAGES},
        "source": source_digest(*sources),
        "frames": arguments.frame_options(),
        "video_decode_backend": arguments.video_decode_backend,
        "sampling": arguments.sampling,
        "damaged_videos": arguments.damaged_videos,
        "deterministic": arguments.deterministic and arguments.fixed_vision_batch_size(),
        **{name: value for name, value in identity.items() if name not in PARTS},
    }


def _open_without_waiting(path: str, flags: int) -> int:
    """A descriptor; FIFOs that nobody reads, and links, are refused."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
