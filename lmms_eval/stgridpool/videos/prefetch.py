"""Prefetching: threads decode and preprocess videos before they are needed."""

import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llava.frame_choice import INDEX
from llava.video import VideoClip, VideoReadError
from llava.video_process import VideoReader
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache
from stgridpool.compressor import Compressor, EncoderLayer, Step
from stgridpool.distinct_frames import DistinctFrames
from stgridpool.evidence import Evidence, Need
from stgridpool.frame_evidence import FrameSources
from stgridpool.frame_transform import transformed
from stgridpool.model import Tensors, map_tensors


@dataclass(frozen=True, eq=False)
class LoadedVideo:
    """A video in host memory: the input of the vision tower, or its output from the feature cache.

    Attributes:
        frames: Pixels, for LLaVA (U, 3, S, S) of the distinct frames or of pictures made of frames, or features; in
            pinned memory if the model is on a GPU.
        is_encoded: Whether `frames` are features from the feature cache.
        times: Time of each frame, in seconds.
        duration: Length of the video, in seconds.
        name: Name of its entry in the feature cache; None without a cache.
        seconds: Seconds spent on "decode" and "preprocess", or on "read_features".
        num_damaged: Number of signs of damage that the decoder reported.
        evidence: Evidence that the feature cache stored with the features.
        distinct: Which frames the pixels are of; None for features, where frames are merged in the tower, and where
            every frame is encoded or the model itself looks for equal ones.
        indices: Position of each frame in the file.
    """

    frames: Tensors
    is_encoded: bool
    times: tuple[float, ...]
    duration: float
    name: str | None
    seconds: dict[str, float]
    num_damaged: int = 0
    evidence: Evidence = field(default_factory=dict)
    distinct: DistinctFrames | None = None
    indices: tuple[int, ...] = ()


class VideoLoader:
    """Prefetches videos in the order in which they will be needed.

    It holds at most `arguments.prefetch` videos in addition to the one in use.

    Args:
        recipe: The conversion of frames into pixels.
        arguments: How to read videos, how many to prefetch, and with how many threads.
        dtype: Type of the pixels.
        pin: Whether to use pinned memory, from which a GPU copies asynchronously.
        cache: The feature cache, or None.

    Attributes:
        needs: Evidence that the vision tower must compute for each video, and that entries of the cache must have; set
            it before calling `expect`.
        steps: Steps of the method on which features depend, see `Step.is_before_features`; those on frames are applied
            here. Set them before calling `expect`, too.
    """

    def __init__(
        self,
        recipe: Any,
        arguments: Arguments,
        dtype: torch.dtype,
        pin: bool,
        cache: FeatureCache | None = None,
    ) -> None:
        self._recipe, self._arguments = recipe, arguments
        self._dtype, self._pin, self._cache = dtype, pin, cache
        self.needs: Collection[Need] = ()
        self.steps: Sequence[Step] = ()
        self._reader = VideoReader(arguments.decode_timeout_s, arguments.decode_memory_gb, recipe.resizing)
        self._expected: deque[Path] = deque()
        self._loading: deque[tuple[Path, Future[LoadedVideo]]] = deque()
        self._threads: ThreadPoolExecutor | None = None
        if arguments.prefetch:
            self._threads = ThreadPoolExecutor(arguments.decode_threads, thread_name_prefix="video")

    def ask(self, compressors: Sequence[Compressor], steps: Sequence[Step] = ()) -> None:
        """Have the vision tower compute, for every video to come, the evidence that any of `compressors` needs.

        Args:
            compressors: The methods.
            steps: Their steps before the features, which must be the same for all, see `early_steps`.
        """
        needs = {need for compressor in compressors for need in compressor.needs if need.from_tower}
        if any(isinstance(step.place, EncoderLayer) for step in steps):
            needs.add(FrameSources())
        self.needs, self.steps = sorted(needs, key=repr), steps

    def expect(self, paths: Iterable[Path]) -> None:
        """Announce the videos that `get` will be called for, in this order; earlier announcements are forgotten."""
        self._forget_all()
        if self._threads is not None:
            self._expected = deque(paths)
            self._fill()

    def get(self, path: Path) -> LoadedVideo:
        """Return a video, and load it now if it was not expected.

        Videos that were expected earlier are forgotten. They are no longer needed: if one video of a question cannot be
        read, for instance, the other videos of the question are skipped.

        Raises:
            VideoReadError: If the video cannot be read.
            ReadingProcessError: If the machine or the installation is at fault.
        """
        if all(path != one for one, _ in self._loading) and path not in self._expected:
            return self._load(path)
        self._forget_before(path)
        future = self._loading.popleft()[1]
        self._fill()
        return future.result()

    def whole_frames(self, path: Path) -> VideoClip:
        """Read the frames of a video that are sampled, at their own size, for pictures.

        Raises:
            VideoReadError: If the video cannot be read.
        """
        reader = VideoReader(self._arguments.decode_timeout_s, self._arguments.decode_memory_gb)
        return reader.read(path, **self._options(path))

    def entries_of_missing(self, paths: Iterable[str]) -> list[str | None]:
        """Name the entries of the cache that stand in for videos whose files are gone, if they may; see `newest`."""
        return [self._newest(Path(path)) for path in paths if self._may_stand_in(Path(path))]

    def close(self) -> None:
        """Forget all expected videos and end the reading processes; loads that are running still finish."""
        self._forget_all()
        self._reader.close()

    def _forget_all(self) -> None:
        self._expected.clear()
        while self._loading:
            self._loading.popleft()[1].cancel()

    def _forget_before(self, path: Path) -> None:
        while self._loading and self._loading[0][0] != path:
            self._loading.popleft()[1].cancel()
        if not self._loading:
            while self._expected[0] != path:
                self._expected.popleft()
            self._fill()

    def _fill(self) -> None:
        while self._threads is not None and self._expected and len(self._loading) < self._arguments.prefetch:
            path = self._expected.popleft()
            self._loading.append((path, self._threads.submit(self._load, path)))

    def _load(self, path: Path) -> LoadedVideo:
        if self._cache is None:
            return self._decode(path, None)
        started = time.perf_counter()
        name = self._cache.name(path, self.needs, self.steps)
        is_gone = self._may_stand_in(path)
        if is_gone:
            name = self._newest(path) or name
        kept = self._cache.get(name, self.needs)
        if kept is None and is_gone:
            raise VideoReadError(str(path), "no such file, and the feature cache has no such features of it")
        if kept is None:
            return self._decode(path, name)
        features = map_tensors(kept.features, self._pinned)
        evidence = {need: self._pinned(value) for need, value in kept.evidence.items()}
        seconds = {"read_features": time.perf_counter() - started}
        facts = (kept.times, kept.duration, name, seconds, kept.num_damaged, evidence)
        return LoadedVideo(features, True, *facts, indices=kept.indices)

    def _may_stand_in(self, path: Path) -> bool:
        """Return whether the cache may serve a video whose file is gone."""
        return self._arguments.features_of_missing_videos and not path.exists()

    def _newest(self, path: Path) -> str | None:
        return None if self._cache is None else self._cache.newest(path, self.needs, self.steps)

    def _decode(self, path: Path, name: str | None) -> LoadedVideo:
        started = time.perf_counter()
        clip = self._read(path)
        decoded = time.perf_counter()
        pixels, distinct = self._prepare(clip)
        pixels = map_tensors(pixels, self._pinned)
        seconds = {"decode": decoded - started, "preprocess": time.perf_counter() - decoded}
        facts = (tuple(clip.times), clip.duration, name, seconds, clip.num_damaged)
        return LoadedVideo(pixels, False, *facts, distinct=distinct, indices=tuple(clip.indices))

    def _prepare(self, clip: VideoClip) -> tuple[Tensors, DistinctFrames | None]:
        """Convert frames to the input of the vision tower; frames that equal an earlier one are left out."""
        pixels: torch.Tensor = self._recipe.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
        pixels = transformed(self.steps, pixels)
        merges = any(isinstance(step.place, EncoderLayer) for step in self.steps)
        reuses = self._arguments.reuse_frames and not merges  # merging depends on all frames
        distinct = DistinctFrames.of(pixels) if reuses else None
        if distinct and distinct.num_reused:
            pixels = pixels[list(distinct.first)]
        return pixels.to(self._dtype), distinct

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.pin_memory() if self._pin else tensor

    def _options(self, path: Path) -> dict[str, Any]:
        """Return the options with which to read a video."""
        arguments = self._arguments
        options = arguments.frame_options() | {"sampling": arguments.sampling or INDEX}
        return options if path.is_dir() else options | {"backend": arguments.video_decode_backend}

    def _read(self, path: Path) -> VideoClip:
        arguments = self._arguments
        clip = self._reader.read(path, **self._options(path))
        if clip.num_damaged and arguments.damaged_videos == "fail":
            signs = f"the decoder reported {clip.num_damaged} signs of damage, and damaged_videos is fail"
            raise VideoReadError(str(path), f"damaged: {signs}")
        return clip
