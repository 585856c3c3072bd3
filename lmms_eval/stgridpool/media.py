"""What a question shows, ready for the language model: videos decoded, encoded and compressed; images as pixels."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from llava.layout import EncodedVideo
from llava.mm_utils import process_images
from llava.video import VideoReadError
from lmms_eval_stgridpool.loading import VideoLoader
from stgridpool.stage_timer import StageTimer


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
    """

    inputs: Any = None
    modalities: tuple[str, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] | None = None
    clips: tuple[ClipTimes, ...] = ()
    frames: int = 0
    visual_tokens: int = 0
    newline_tokens: int = 0

    @property
    def num_visuals(self) -> int:
        """Placeholders that the prompt must hold."""
        return len(self.modalities)

    def prompt_length(self, num_ids: int) -> int:
        """Tokens of a prompt of `num_ids` ids, each placeholder of a video replaced by the video's tokens."""
        return num_ids + self.visual_tokens + self.newline_tokens - len(self.clips)


@dataclass(frozen=True, eq=False)
class MediaEncoder:
    """Turns visuals into `Media`.

    Attributes:
        model: The model of ``llava``.
        image_processor: Its image processor.
        loader: Reads videos.
        device: Where pixels go.
        dtype: Of the pixels.
    """

    model: Any
    image_processor: Any
    loader: VideoLoader
    device: torch.device
    dtype: torch.dtype

    def encode(self, visuals: Sequence[Any], timer: StageTimer) -> Media:
        """Encode paths of videos, or PIL images.

        Raises:
            VideoReadError: If a video cannot be read.
            TypeError: If the visuals are neither all paths nor all images.
        """
        if not visuals:
            return Media()
        if all(isinstance(visual, str | Path) for visual in visuals):
            return self._encode_videos([Path(visual) for visual in visuals], timer)
        if all(isinstance(visual, Image.Image) for visual in visuals):
            return self._prepare_images(visuals, timer)
        kinds = sorted({type(visual).__name__ for visual in visuals})
        raise TypeError(f"visuals must be paths of videos or PIL images, got {', '.join(kinds)}")

    def _encode_videos(self, paths: Sequence[Path], timer: StageTimer) -> Media:
        encoded: list[EncodedVideo] = []
        clips = []
        for path in paths:
            with on_host(timer, "wait_for_video"):
                loaded = self.loader.get(path)
            for stage, seconds in loaded.seconds.items():
                timer.add(stage, seconds)
            pixels = loaded.pixels.to(self.device, non_blocking=True)  # (T, 3, S, S)
            encoded.append(self.model.encode_video(pixels, timer=timer))
            check_count(self.model.compressor, encoded[-1])
            clips.append(ClipTimes(loaded.times, loaded.duration))
        return Media(
            inputs=encoded,
            modalities=("video",) * len(encoded),
            clips=tuple(clips),
            frames=sum(len(clip.times) for clip in clips),
            visual_tokens=sum(len(video.embeds) - video.num_newlines for video in encoded),
            newline_tokens=sum(video.num_newlines for video in encoded),
        )

    def _prepare_images(self, images: Sequence[Image.Image], timer: StageTimer) -> Media:
        """Pixels of images; several images of one question are padded to squares instead of tiled, as in training."""
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
        return Media(
            inputs=pixels, modalities=("image",) * len(images), image_sizes=tuple(image.size for image in images)
        )


class MediaCache:
    """Remembers the visuals of the last question, so that neighbouring questions about a video encode it once.

    A video that could not be read is remembered, too.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._media: Media | VideoReadError | None = None

    def get(self, key: Any, encode: Callable[[], Media]) -> Media:
        """The media called `key`, encoded only if the last ones were others. A key of None equals nothing.

        Raises:
            VideoReadError: If `encode` raises it, now or for the last question.
        """
        if key is None or key != self._key or self._media is None:
            self._media = None  # frees the last video before the next one is encoded
            try:
                self._media = encode()
            except VideoReadError as error:
                self._media = error
            self._key = key
        if isinstance(self._media, VideoReadError):
            raise self._media
        return self._media


def check_count(compressor: Any, video: EncodedVideo) -> None:
    """Make sure that the compressor ran: the tokens that go into the language model are those that it planned.

    Raises:
        RuntimeError: If their number is another one.
    """
    entered = len(video.embeds) - video.num_newlines
    planned = compressor.planned_count(video.plan.grid)
    for expected, name in ((len(video.plan), "plan has"), (planned, "settings give")):
        if expected is not None and entered != expected:
            raise RuntimeError(
                f"{entered} visual tokens enter the language model, but {compressor!r}'s {name} {expected}"
            )


@contextmanager
def on_host(timer: StageTimer, name: str) -> Iterator[None]:
    """Count wall-clock time: work of the CPU, which events on a GPU's stream do not see."""
    started = time.perf_counter()
    try:
        yield
    finally:
        timer.add(name, time.perf_counter() - started)
