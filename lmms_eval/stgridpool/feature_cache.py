"""What the vision tower gave for a video, kept on disk: another compressor then neither decodes nor encodes it again.

Each video is a safetensors file, named by a digest of all that its features depend on: the video file's path, size and
time of change, how its frames are chosen and decoded, and the tower with its weights and dtype. Any number of processes
may share the folder. Files appear in it whole or not at all, and those that were written first make room for new ones.
"""

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from llava.model.tower import VisionTower
from lmms_eval_stgridpool.arguments import Arguments
from lmms_eval_stgridpool.journal import answer_key, video_identity

ENDING = ".safetensors"
FORMAT = 1  # of the entries; to be raised where frames, pixels or features come out otherwise than before


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """A video as the vision tower sees it.

    Attributes:
        features: (T, n*n, C), before the projector.
        times: One per frame, in seconds.
        duration: Length of the video, in seconds.
        is_from_cache: Whether they were read, not made.
    """

    features: torch.Tensor
    times: tuple[float, ...]
    duration: float
    is_from_cache: bool = False


class FeatureCache:
    """A folder of features.

    Args:
        folder: Where the files lie; it is made if it is missing.
        limit_bytes: Most bytes of features that may lie in it.
        setup: What the features of all videos of this run depend on, see `feature_setup`.

    Attributes:
        folder: Where the files lie.
        is_writable: Whether `add` still adds.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: float, setup: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._limit_bytes, self._setup = limit_bytes, setup
        self.is_writable = True
        self._has_evicted = False

    def name(self, video: Path) -> str:
        """What a video, a file or a folder of pictures, is called here; one that was changed has another name."""
        return answer_key({"setup": self._setup, "files": video_identity(video.resolve())})

    def get(self, name: str) -> VideoFeatures | None:
        """The features called `name`; None where there are none, or where the file is damaged."""
        path = self._path(name)
        try:
            with safe_open(path, "pt") as file:
                facts = file.metadata()
                features = file.get_tensor("features").clone()  # the file itself may be evicted at any time
            if facts.pop("checksum") != _checksum(name, features, facts):
                raise ValueError("its checksum differs")
            return VideoFeatures(features, tuple(json.loads(facts["times"])), float(facts["duration"]), True)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, AttributeError, KeyError, ValueError) as error:
            logger.warning(f"{path} is damaged, the video is encoded anew: {error}")
            return None

    def add(self, name: str, video: VideoFeatures) -> None:
        """Write features down, in place of the oldest ones if there is no room.

        If the disk is full the run goes on without adding to the cache and says so once.
        """
        if not self.is_writable:
            return
        features = video.features.cpu().contiguous()
        facts = {"times": json.dumps(video.times), "duration": repr(video.duration)}
        data = save({"features": features}, {**facts, "checksum": _checksum(name, features, facts)})
        if len(data) > self._limit_bytes:
            logger.warning(f"features of {len(data)} bytes do not fit into a cache of {self._limit_bytes:.0f} bytes")
            return
        try:
            with self._lock():
                self._make_room(len(data))
                temporary = self._path(name).with_suffix(".tmp")
                try:
                    temporary.write_bytes(data)
                    os.replace(temporary, self._path(name))
                finally:
                    temporary.unlink(missing_ok=True)
        except OSError as error:
            self.is_writable = False
            logger.error(f"features are no longer written to {self.folder}, the run goes on without: {error}")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{ENDING}"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Only one process at a time changes the folder; the lock of one that dies is gone with it."""
        with open(self.folder / ".lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, num_bytes: int) -> None:
        """Remove what killed processes left behind, and the oldest features until `num_bytes` more fit in."""
        for orphan in self.folder.glob("*.tmp"):
            orphan.unlink()
        files = [(file, file.stat()) for file in self.folder.glob(f"*{ENDING}")]
        files.sort(key=lambda entry: entry[1].st_mtime_ns)
        total = sum(status.st_size for _, status in files)
        for file, status in files:
            if total + num_bytes <= self._limit_bytes:
                break
            file.unlink()
            total -= status.st_size
            if not self._has_evicted:
                self._has_evicted = True
                logger.warning(f"{self.folder} is full: from now on the oldest features make room for new ones")


def open_feature_cache(arguments: Arguments, tower: VisionTower, config: Any) -> FeatureCache | None:
    """The cache that the arguments ask for; None where they ask for none.

    Args:
        arguments: See `feature_cache` and `feature_cache_gb`.
        tower: The vision tower.
        config: The checkpoint's configuration.

    Raises:
        OSError: If the folder cannot be made.
        ValueError: If the tower's weights are offloaded.
    """
    if arguments.feature_cache is None:
        return None
    setup = feature_setup(arguments, tower, config)
    return FeatureCache(arguments.feature_cache, arguments.feature_cache_gb * 1e9, setup)


def feature_setup(arguments: Arguments, tower: VisionTower, config: Any) -> dict[str, Any]:
    """What the features of a run depend on, besides the video: how frames are chosen and decoded, and the tower.

    Towers of one name differ where they were trained further, so that all weights count.

    Args:
        arguments: How videos are read.
        tower: The vision tower.
        config: The checkpoint's configuration.

    Raises:
        ValueError: If the tower's weights are offloaded.
    """
    digest = sha256()
    for name, weights in sorted(tower.vision_tower.state_dict().items()):
        if weights.is_meta:
            raise ValueError("feature_cache cannot be used while the vision tower is offloaded")
        digest.update(f"{name} {tuple(weights.shape)}".encode())
        digest.update(_bytes(weights))
    return {
        "format": FORMAT,
        "image_processor": repr(tower.image_processor),
        "attn_implementation": arguments.attn_implementation,
        "max_frames_num": arguments.max_frames_num,
        "fps": arguments.fps,
        "force_sample": arguments.force_sample,
        "video_decode_backend": arguments.video_decode_backend,
        "tower": tower.name,
        "layer": config.mm_vision_select_layer,
        "feature": config.mm_vision_select_feature,
        "weights": digest.hexdigest(),
        "dtype": str(tower.dtype),
    }


def _checksum(name: str, features: torch.Tensor, facts: Mapping[str, str]) -> str:
    text = json.dumps([name, str(features.dtype), tuple(features.shape), dict(facts)], sort_keys=True)
    return f"{zlib.crc32(_bytes(features), zlib.crc32(text.encode())):08x}"


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
