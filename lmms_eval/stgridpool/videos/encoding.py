"""What a question shows, ready for the language model: videos decoded, encoded and compressed; images as pixels."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from PIL import Image

from llava.encoded_video import EncodedVideo
from llava.mm_utils import process_images
from llava.video import VideoReadError
from llava.video_opening import printable
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache, VideoFeatures
from lmms_eval_stgridpool.videos.prefetch import VideoLoader
from stgridpool.compressor import Step, planned_counts
from stgridpool.finite import StageCheck
from stgridpool.timing import StageTimer

Made = TypeVar("Made")


@dataclass(frozen=True)
class ClipTimes:
    """When the frames of a video are shown.

    Attributes:
        times: One per frame, in seconds.
        duration: Length of the video, in seconds.
    """

    times: tuple[float, ...]
    duration: float


@dataclass(frozen=True, eq=False)
class Media:
    """The visuals of a question. Without any, everything is empty.

    Attributes:
        inputs: What the model's ``images`` argument gets, or None.
        modalities: "video" or "image" for each visual.
        image_sizes: (width, height) of each image in pixels; None for videos.
        clips: Times of each video.
        frames: Video frames over all videos.
        visual_tokens: Tokens of the videos that the compressor left, without newline tokens.
        newline_tokens: Newline tokens among them.
        image_tokens: Tokens of the images.
        cache_hits: Videos whose features came from the feature cache.
        cache_misses: Videos whose features were put into it.
        checks: Whether what each stage gave for the visuals is finite. Nobody has waited for them yet.
        damaged: Signs of damage by path of a video; without those that gave none.
    """

    inputs: Any = None
    modalities: tuple[str, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] | None = None
    clips: tuple[ClipTimes, ...] = ()
    frames: int = 0
    visual_tokens: int = 0
    newline_tokens: int = 0
    image_tokens: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    checks: tuple[StageCheck, ...] = ()
    damaged: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_visuals(self) -> int:
        """Placeholders that the prompt must hold."""
        return len(self.modalities)

    def prompt_length(self, num_ids: int) -> int:
        """Tokens of a prompt of `num_ids` ids, each placeholder replaced by the tokens of its video or image."""
        return num_ids + self.visual_tokens + self.newline_tokens + self.image_tokens - self.num_visuals


@dataclass(frozen=True, eq=False)
class MediaEncoder:
    """Turns visuals into `Media`.

    Attributes:
        model: The model of ``llava``.
        image_processor: Its image processor.
        loader: Reads videos.
        device: Where pixels go.
        dtype: Of the pixels.
        cache: Where the features of videos are kept, or None.
    """

    model: Any
    image_processor: Any
    loader: VideoLoader
    device: torch.device
    dtype: torch.dtype
    cache: FeatureCache | None = None

    def encode(self, visuals: Sequence[Any], timer: StageTimer) -> Media:
        """Encode paths of videos, or PIL images.

        Raises:
            VideoReadError: If a video cannot be read.
            TypeError: If the visuals are neither all paths nor all images.
        """
        if not visuals:
            return Media()
        if all(isinstance(visual, str | Path) for visual in visuals):
            if not all(str(visual).strip() for visual in visuals):
                raise VideoReadError("", "the task names an empty path")  # it would be the working directory
            return self._encode_videos([Path(visual) for visual in visuals], timer)
        if all(isinstance(visual, Image.Image) for visual in visuals):
            return self._encode_images(visuals, timer)
        kinds = sorted({type(visual).__name__ for visual in visuals})
        raise TypeError(f"visuals must be paths of videos or PIL images, got {', '.join(kinds)}")

    def _encode_videos(self, paths: Sequence[Path], timer: StageTimer) -> Media:
        videos = self.features(paths, timer)
        encoded: list[EncodedVideo] = []
        for video in videos:
            encoded.append(self.model.encode_features(video.features, timer))
            check_count(self.model.front_steps, encoded[-1])
        hits = sum(video.is_from_cache for video in videos)
        return Media(
            inputs=encoded,
            modalities=("video",) * len(encoded),
            clips=tuple(ClipTimes(video.times, video.duration) for video in videos),
            frames=sum(len(video.times) for video in videos),
            visual_tokens=sum(len(video.embeds) - video.num_newlines for video in encoded),
            newline_tokens=sum(video.num_newlines for video in encoded),
            cache_hits=hits,
            damaged={
                printable(str(path)): video.num_damaged
                for path, video in zip(paths, videos, strict=True)
                if video.num_damaged
            },
            cache_misses=0 if self.cache is None else len(videos) - hits,
            checks=tuple(check for video in encoded for check in video.checks),
        )

    def features(self, paths: Sequence[Path], timer: StageTimer) -> list[VideoFeatures]:
        """What the vision tower gives for videos, now or, where it is in the cache, then.

        Raises:
            VideoReadError: If a video cannot be read.
        """
        return [self._features(path, timer) for path in paths]

    def _features(self, path: Path, timer: StageTimer) -> VideoFeatures:
        with on_host(timer, "wait_for_video"):
            loaded = self.loader.get(path)
        for stage, seconds in loaded.seconds.items():
            timer.add(stage, seconds)
        features = loaded.frames.to(self.device, non_blocking=True)
        evidence = {need: value.to(self.device, non_blocking=True) for need, value in loaded.evidence.items()}
        if not loaded.is_encoded:
            features, evidence = self.model.vision_features(features, timer, self.loader.needs)
        video = VideoFeatures(features, loaded.times, loaded.duration, loaded.is_encoded, loaded.num_damaged, evidence)
        if self.cache is not None and loaded.name is not None and not loaded.is_encoded:
            with on_host(timer, "write_features"):
                self.cache.add(loaded.name, video)
        return video

    def _encode_images(self, images: Sequence[Image.Image], timer: StageTimer) -> Media:
        """Tokens of images; several images of one question are padded to squares instead of tiled, as in training."""
        config = self.model.config
        if len(images) > 1:
            config = copy.copy(config)
            config.image_aspect_ratio = "pad"
        with on_host(timer, "preprocess"):
            pixels = process_images(list(images), self.image_processor, config)
            if isinstance(pixels, torch.Tensor):
                pixels = pixels.to(self.device, self.dtype)
            else:
                pixels = [image.to(self.device, self.dtype) for image in pixels]
        modalities, sizes = ("image",) * len(images), tuple(image.size for image in images)
        with timer.stage("vision"):
            tokens = self.model.encode_visuals(pixels, modalities, sizes)
        return Media(
            inputs=tokens,
            modalities=modalities,
            image_sizes=sizes,
            image_tokens=sum(len(image) for image in tokens),
            checks=tuple(StageCheck.of("vision tower or projector", image) for image in tokens),
        )


class LastMade(Generic[Made]):
    """Remembers what was made of the last question's visuals, so that neighbouring questions about a video share it.

    A video that could not be read is remembered, too.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._made: Made | VideoReadError | None = None

    def get(self, key: Any, make: Callable[[], Made]) -> Made:
        """What is called `key`, made only if the last thing was called otherwise. A key of None equals nothing.

        Raises:
            VideoReadError: If `make` raises it, now or for the last question.
        """
        if key is None or key != self._key or self._made is None:
            self.forget()  # frees the last video before the next one is encoded
            try:
                self._made = make()
            except VideoReadError as error:
                self._made = error
            self._key = key
        if isinstance(self._made, VideoReadError):
            raise self._made
        return self._made

    def forget(self) -> None:
        """Free what was made."""
        self._made = None


def check_count(steps: Sequence[Step], video: EncodedVideo) -> None:
    """Make sure that the compressor ran: the tokens that go into the language model are those that it planned.

    Raises:
        RuntimeError: If their number is another one.
    """
    entered = video.num_tokens
    planned = planned_counts(steps, video.source_shape)[-1]
    for expected, name in ((len(video.plan), "plan has"), (planned, "settings give")):
        if expected is not None and entered != expected:
            raise RuntimeError(
                f"{entered} visual tokens enter the language model, but {steps[-1].compressor!r}'s {name} {expected}"
            )


@contextmanager
def on_host(timer: StageTimer, name: str) -> Iterator[None]:
    """Count wall-clock time: work of the CPU, which events on a GPU's stream do not see."""
    started = time.perf_counter()
    try:
        yield
    finally:
        timer.add(name, time.perf_counter() - started)
