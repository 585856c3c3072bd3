"""A file of the feature cache in safetensors' format: a video's features and evidence, times, a checksum and a mark."""

import io
import json
import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from stgridpool.evidence import Evidence, Need
from stgridpool.weights_digest import tensor_bytes

DAMAGE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a file may raise that is no such file, or is damaged."""

_FEATURES = "features"  # their name in the file; evidence has its need's
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
        evidence: What methods asked the tower for besides, about the same frames.
    """

    features: torch.Tensor
    times: tuple[float, ...]
    duration: float
    is_from_cache: bool = False
    num_damaged: int = 0
    evidence: Evidence = field(default_factory=dict)


def pack(name: str, video: VideoFeatures) -> bytes:
    """A file's content.

    Args:
        name: What the features are called in the cache; it goes into the checksum.
        video: The features.
    """
    tensors = {repr(need): value.cpu().contiguous() for need, value in video.evidence.items()}
    tensors[_FEATURES] = video.features.cpu().contiguous()
    facts = {"times": json.dumps(video.times), "duration": repr(video.duration), _MARK[0]: _MARK[1]}
    facts["damaged"] = str(video.num_damaged)
    return save(tensors, {**facts, "checksum": _checksum(name, tensors, facts)})


def unpack(name: str, data: bytes, needs: Collection[Need] = ()) -> VideoFeatures:
    """Read what a file holds.

    Args:
        name: What the features are called in the cache.
        data: The file's content.
        needs: The evidence that must be there.

    Raises:
        ValueError: If it is damaged, or holds features of another name; `DAMAGE` lists what else damage may raise.
        LookupError: If it lacks evidence.
    """
    facts = _header(io.BytesIO(data), len(data))
    tensors = load(data)
    if facts.pop("checksum") != _checksum(name, tensors, facts):
        raise ValueError("its checksum differs")
    times, duration = tuple(json.loads(facts["times"])), float(facts["duration"])
    evidence = {need: tensors[repr(need)] for need in needs}
    return VideoFeatures(tensors[_FEATURES], times, duration, True, int(facts["damaged"]), evidence)


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


def _checksum(name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    features = tensors[_FEATURES]
    described: list[Any] = [name, str(features.dtype), tuple(features.shape), dict(facts)]
    evidence = sorted(tensors.keys() - {_FEATURES})
    described += [(key, str(tensors[key].dtype), tuple(tensors[key].shape)) for key in evidence]
    checksum = zlib.crc32(json.dumps(described, sort_keys=True).encode())
    for key in (_FEATURES, *evidence):
        checksum = zlib.crc32(tensor_bytes(tensors[key]), checksum)
    return f"{checksum:08x}"
