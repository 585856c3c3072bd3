"""Features that STTM's code extracted, put into the cache in place of videos that are not there.

A video VID has ``features/VID.pt``, the output of the vision tower (T, P, C) in bfloat16, and ``metadata/VID.pkl``, its
length and the times of its frames. The folder around them says which frames they are of: F-128_fps-1.

Source: https://github.com/HYUNJS/STTM
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from llava.frame_choice import INDEX
from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures
from lmms_eval_stgridpool.videos.plain_pickle import read_plain_pickle
from stgridpool.finite import all_finite

_FRAMES = re.compile(r"F-(\d+)_fps-(\d+(?:\.\d+)?)")
_METADATA = {"video_time": (int, float), "frame_time": (str,), "num_frames": (int,)}


@dataclass(frozen=True)
class Imported:
    """The outcome for the files.

    Attributes:
        videos: Number of videos whose features are in the cache now.
        failures: Why others are not.
        folder: The cache.
    """

    videos: int
    failures: tuple[str, ...]
    folder: str

    def __str__(self) -> str:
        return f"{self.videos} videos imported, {len(self.failures)} not. Features in {self.folder}"


def import_all(features: Path, videos: Path, model_args: str) -> Imported:
    """Put features into the cache, for the paths that a task will name.

    Args:
        features: A folder of STTM's, such as ``.../F-128_fps-1``, with ``features`` and ``metadata``.
        videos: Folder in which the task looks for VID.mp4; no video is needed there.
        model_args: Arguments of llava_video as for the evaluation, with ``feature_cache=FOLDER``.

    Raises:
        ValueError: If there are no features, or `model_args` name no cache or ask for other frames.
    """
    given = parse_model_args(model_args)
    arguments = LlavaArguments.parse(given)
    if arguments.feature_cache is None:
        raise ValueError("--model_args must name a folder: feature_cache=FOLDER")
    check_frames(features.resolve().name, arguments)
    files = sorted((features / "features").glob("*.pt"))
    if not files:
        raise ValueError(f"there are no files {features / 'features'}/*.pt")
    model = LlavaVideo(**given)
    tower, cache = model.model.language_model.get_vision_tower(), model.encoder.cache
    if cache is None:
        raise ValueError("the model opened no feature cache")
    expected = (tower.num_patches, tower.hidden_size)
    failures = []
    for file in files:
        try:
            made = read_features(file, features / "metadata" / f"{file.stem}.pkl", expected, tower.dtype)
            _add(cache, videos / f"{file.stem}.mp4", made)
        except (OSError, ValueError) as error:
            failures.append(f"{file}: {error}")
    return Imported(len(files) - len(failures), tuple(failures), arguments.feature_cache)


def check_frames(folder: str, arguments: LlavaArguments) -> None:
    """Check that a run will ask for the frames that a folder's name tells.

    Raises:
        ValueError: If it will not.
    """
    found = _FRAMES.fullmatch(folder)
    if found is None:
        raise ValueError(f"the folder of features must be called F-NUMBER_fps-RATE, such as F-128_fps-1, got {folder}")
    most, fps = int(found[1]), float(found[2])
    if (arguments.max_frames_num, arguments.fps) != (most, fps) or arguments.sampling not in (None, INDEX):
        raise ValueError(f"{folder} holds frames of max_frames_num={most},fps={fps:g}: give these in --model_args")


def read_features(file: Path, metadata: Path, expected: tuple[int, int], dtype: torch.dtype) -> VideoFeatures:
    """Read the features of one video.

    Args:
        file: The tensor.
        metadata: The pickle.
        expected: (P, C) of the vision tower.
        dtype: Dtype of the features in the cache.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file is damaged, holds anything else, or does not fit.
    """
    try:
        features = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"it is not a tensor that torch saved: {str(error).splitlines()[0]}") from error
    if not isinstance(features, torch.Tensor) or features.ndim != 3 or tuple(features.shape[1:]) != expected:
        found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise ValueError(f"the features must be (frames, {expected[0]}, {expected[1]}) of this tower, got {found}")
    facts = _facts(read_plain_pickle(metadata), metadata)
    times = tuple(_seconds(word, metadata) for word in facts["frame_time"].split(","))
    if not len(features) == len(times) == facts["num_frames"]:
        raise ValueError(f"{len(features)} frames, but {metadata} lists {len(times)} times and {facts['num_frames']}")
    features = features.to(dtype)
    if not all_finite(features):
        raise ValueError(f"the features are not finite in {dtype}")
    return VideoFeatures(features, times, float(facts["video_time"]))


def _facts(metadata: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} must hold a dictionary, got a {type(metadata).__name__}")
    for name, kinds in _METADATA.items():
        if not isinstance(metadata.get(name), kinds):
            raise ValueError(f"{path}: {name} must be a {kinds[-1].__name__}, got {metadata.get(name)!r}")
    return metadata


def _seconds(word: str, path: Path) -> float:
    try:
        return float(word.strip().removesuffix("s"))
    except ValueError as error:
        raise ValueError(f"{path}: frame_time must be such as 0.00s,1.00s, got {word!r}") from error


def _add(cache: FeatureCache, video: Path, made: VideoFeatures) -> None:
    """Add features under the path of a video.

    Raises:
        ValueError: If the video is there, so that its own features will be computed.
        OSError: If the cache cannot be written.
    """
    if video.exists():
        raise ValueError(f"{video} is there, so a run encodes it")
    name = cache.name(video)
    cache.add(name, made)
    cache.remember(name, video)
    if cache.newest(video) != name:
        raise OSError(f"the cache did not take it: see above, or raise feature_cache_gb ({cache.folder})")
