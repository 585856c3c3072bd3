"""A file of the feature cache: a video's features in safetensors' format, with their times, a checksum and a mark."""

import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lmms_eval_stgridpool.kept.identity import tensor_bytes

DAMAGE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a file may raise that is no such file, or is damaged."""

_MARK = ("made_by", "stgridpool's feature cache")  # in the header of every file


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """A video as the vision tower sees it.

    Attributes:
        features: (T, n*n, C), before the projector.
        times: One per frame, in seconds.
        duration: Length of the video, in seconds.
        is_from_cache: Whether they were read, not made.
        num_damaged: Signs of damage that the decoder gave.
    """

    features: torch.Tensor
    times: tuple[float, ...]
    duration: float
    is_from_cache: bool = False
    num_damaged: int = 0


def pack(name: str, video: VideoFeatures) -> bytes:
    """A file's content.

    Args:
        name: What the features are called in the cache; it goes into the checksum.
        video: The features.
    """
    features = video.features.cpu().contiguous()
    facts = {"times": json.dumps(video.times), "duration": repr(video.duration), _MARK[0]: _MARK[1]}
    facts["damaged"] = str(video.num_damaged)
    return save({"features": features}, {**facts, "checksum": _checksum(name, features, facts)})


def unpack(name: str, data: bytes) -> VideoFeatures:
    """What a file holds.

    Raises:
        ValueError: If it is damaged, or holds features of another name; `DAMAGE` lists what else damage may raise.
    """
    facts = _header(io.BytesIO(data), len(data))
    features = load(data)["features"]
    if facts.pop("checksum") != _checksum(name, features, facts):
        raise ValueError("its checksum differs")
    times, duration = tuple(json.loads(facts["times"])), float(facts["duration"])
    return VideoFeatures(features, times, duration, True, int(facts["damaged"]))


def is_marked(file: Path) -> bool:
    """Whether a cache has made a file; only its header is read."""
    try:
        with open(file, "rb") as opened:
            return _header(opened, os.fstat(opened.fileno()).st_size).get(_MARK[0]) == _MARK[1]
    except DAMAGE:
        return False


def _header(file: BinaryIO, size: int) -> dict[str, str]:
    """The metadata in a safetensors file's header: its length in 8 bytes, and JSON.

    Source: https://github.com/huggingface/safetensors#format

    Args:
        file: Opened at its beginning.
        size: Its length, in bytes.
    """
    length = int.from_bytes(file.read(8), "little")
    return json.loads(file.read(min(length, size)))["__metadata__"]


def _checksum(name: str, features: torch.Tensor, facts: Mapping[str, str]) -> str:
    text = json.dumps([name, str(features.dtype), tuple(features.shape), dict(facts)], sort_keys=True)
    return f"{zlib.crc32(tensor_bytes(features), zlib.crc32(text.encode())):08x}"
