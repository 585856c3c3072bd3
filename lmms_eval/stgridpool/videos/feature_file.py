"""Files of the feature cache: safetensors with a video's features, evidence and times, a checksum, and a mark."""

import io
import json
import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from stgridpool.evidence import Evidence, Need
from stgridpool.model import Tensors
from stgridpool.weights_digest import tensor_bytes

DAMAGE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Errors that may occur when a file that is damaged, or not a cache file at all, is read."""

_FEATURES = "features"  # their name in the file; the name of evidence is the `repr` of its need
_MARK = ("made_by", "stgridpool's feature cache")  # in the header of every file


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """The vision tower's features of a video.

    Attributes:
        features: What the model's `encode` has returned, on any device.
        times: Time of each frame, in seconds.
        duration: Length of the video, in seconds.
        is_from_cache: Whether the features were read from the cache.
        num_damaged: Number of signs of damage that the decoder reported.
        evidence: Evidence from the vision tower about the same frames.
        num_reused: Number of frames that equal an earlier one and were not encoded again.
        indices: Position of each frame in the file, see `llava.video.VideoClip`.
    """

    features: Tensors
    times: tuple[float, ...]
    duration: float
    is_from_cache: bool = False
    num_damaged: int = 0
    evidence: Evidence = field(default_factory=dict)
    num_reused: int = 0
    indices: tuple[int, ...] = ()

    def named(self) -> dict[str, torch.Tensor]:
        """Return the features by the names that they have in a file."""
        if isinstance(self.features, torch.Tensor):
            return {_FEATURES: self.features}
        return {f"{_FEATURES}.{name}": value for name, value in self.features.items()}


def pack(name: str, video: VideoFeatures) -> bytes:
    """Encode features as the content of a file.

    Args:
        name: Name of the features in the cache; the checksum includes it.
        video: The features.
    """
    tensors = {repr(need): value.cpu().contiguous() for need, value in video.evidence.items()}
    tensors |= {name: value.cpu().contiguous() for name, value in video.named().items()}
    facts = {"times": json.dumps(video.times), "duration": repr(video.duration), _MARK[0]: _MARK[1]}
    facts |= {"damaged": str(video.num_damaged), "indices": json.dumps(video.indices)}
    return save(tensors, {**facts, "checksum": _checksum(name, tensors, facts)})


def unpack(name: str, data: bytes, needs: Collection[Need] = ()) -> VideoFeatures:
    """Decode the content of a file.

    Args:
        name: Name of the features in the cache.
        data: The content of the file.
        needs: Evidence that the file must have.

    Raises:
        ValueError: If the file is damaged, or has features of another name; `DAMAGE` lists other errors that damage may
            cause.
        LookupError: If evidence is missing.
    """
    facts = _header(io.BytesIO(data), len(data))
    tensors = load(data)
    if facts.pop("checksum") != _checksum(name, tensors, facts):
        raise ValueError("wrong checksum")
    times, duration = tuple(json.loads(facts["times"])), float(facts["duration"])
    evidence = {need: tensors[repr(need)] for need in needs}
    indices = tuple(json.loads(facts["indices"]))
    return VideoFeatures(_features(tensors), times, duration, True, int(facts["damaged"]), evidence, indices=indices)


def _features(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the features among the tensors of a file.

    Raises:
        LookupError: If there are none.
    """
    named = {name: value for name, value in tensors.items() if name.startswith(f"{_FEATURES}.")}
    if not named:
        return tensors[_FEATURES]
    return {name.removeprefix(f"{_FEATURES}."): value for name, value in named.items()}


def is_marked(file: Path) -> bool:
    """Tell whether a file was written by a feature cache; only its header is read."""
    try:
        with open(file, "rb") as opened:
            return _header(opened, os.fstat(opened.fileno()).st_size).get(_MARK[0]) == _MARK[1]
    except DAMAGE:
        return False


def _header(file: BinaryIO, size: int) -> dict[str, str]:
    """Read the metadata in the header of a safetensors file, which is its length in 8 bytes, then JSON.

    Source: https://github.com/huggingface/safetensors#format

    Args:
        file: A file opened at its beginning.
        size: Size of the file, in bytes.
    """
    length = int.from_bytes(file.read(8), "little")
    metadata: dict[str, str] = json.loads(file.read(min(length, size)))["__metadata__"]
    return metadata


def _checksum(name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    keys = sorted(tensors)
    described = [(key, str(tensors[key].dtype), tuple(tensors[key].shape)) for key in keys]
    checksum = zlib.crc32(json.dumps([name, dict(facts), described], sort_keys=True).encode())
    for key in keys:
        checksum = zlib.crc32(tensor_bytes(tensors[key]), checksum)
    return f"{checksum:08x}"
