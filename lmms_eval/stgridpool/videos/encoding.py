"""Encode the visuals of a question for the language model: videos are also decoded and compressed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from llava.video import VideoReadError
from llava.video_opening import printable
from lmms_eval_stgridpool.kept.identity import frames_digest
from lmms_eval_stgridpool.videos.feature_cache import FeatureCache
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures
from lmms_eval_stgridpool.videos.prefetch import LoadedVideo, VideoLoader
from stgridpool.compressor import FRAMES, Step, planned_counts
from stgridpool.distinct_frames import REUSED, repeated
from stgridpool.evidence import Evidence, Question
from stgridpool.finite import StageCheck
from stgridpool.frame_evidence import FramesRead
from stgridpool.listed_frames import ListedFrames
from stgridpool.model import ClipTimes, Tensors, Video, VideoModel, Visual, map_tensors
from stgridpool.timing import StageTimer


@dataclass(frozen=True, eq=False)
class Media:
    """The visuals of a question; everything is empty if there are none.

    Attributes:
        visuals: Videos or images, as the language model reads them.
        clips: Times of each video; empty for images.
        cache_hits: Number of videos whose features came from the feature cache.
        cache_misses: Number of videos whose features were added to the feature cache.
        damaged: Number of signs of damage by path, for each damaged video.
        reused_frames: Number of frames that equal an earlier one and were not encoded again; pictures, where a method
            makes them of several frames.
        frames_sha256: See `frames_digest`; empty without a video.
    """

    visuals: Sequence[Visual] = ()
    clips: tuple[ClipTimes, ...] = ()
    cache_hits: int = 0
    cache_misses: int = 0
    damaged: Mapping[str, int] = field(default_factory=dict)
    reused_frames: int = 0
    frames_sha256: str = ""

    @property
    def frames(self) -> int:
        """Number of frames of all videos."""
        return sum(len(clip.times) for clip in self.clips)

    @property
    def visual_tokens(self) -> int:
        """Number of tokens of the compressed videos, without newline tokens."""
        return sum(visual.num_tokens for visual in self.visuals) if self.clips else 0

    @property
    def newline_tokens(self) -> int:
        """Number of newline tokens of the videos."""
        return sum(visual.num_newlines for visual in self.visuals)

    @property
    def checks(self) -> tuple[StageCheck, ...]:
        """Checks that the output of each stage is finite; the device may still be computing them."""
        return tuple(check for visual in self.visuals for check in visual.checks)


@dataclass(frozen=True, eq=False)
class EncodedMedia:
    """The visuals of a question before compression.

    Attributes:
        videos: Features of each video.
        media: Everything else about the videos; for images, the encoded images.
        paths: The file or folder of each video.
    """

    videos: Sequence[VideoFeatures]
    media: Media
    paths: Sequence[Path] = ()


@dataclass(frozen=True, eq=False)
class MediaEncoder:
    """Encodes and compresses visuals.

    Attributes:
        model: The model.
        loader: Loads videos.
        device: Device of the vision tower.
        cache: The feature cache, or None.
    """

    model: VideoModel
    loader: VideoLoader
    device: torch.device
    cache: FeatureCache | None = None

    def encode(self, visuals: Sequence[object], timer: StageTimer) -> EncodedMedia:
        """Encode videos or images.

        Args:
            visuals: Paths of videos, or PIL images.
            timer: Receives the time of each stage.

        Raises:
            VideoReadError: If a video cannot be read.
            TypeError: If the visuals are neither all paths nor all images.
        """
        if not visuals:
            return EncodedMedia((), Media())
        paths = [visual for visual in visuals if isinstance(visual, str | Path)]
        if len(paths) == len(visuals):
            if not all(str(path).strip() for path in paths):
                raise VideoReadError("", "the task names an empty path")  # it would be the working directory
            return self._encode_videos([Path(path) for path in paths], timer)
        if all(isinstance(visual, Image.Image) for visual in visuals):
            return EncodedMedia((), Media(self.model.encode_images(visuals, timer)))
        kinds = sorted({type(visual).__name__ for visual in visuals})
        raise TypeError(f"visuals must be paths of videos or PIL images, got {', '.join(kinds)}")

    def compress(self, encoded: EncodedMedia, question: str, timer: StageTimer) -> Media:
        """Compress videos; the result depends on the question if the compressor looks at it.

        Args:
            encoded: The encoded visuals, see `encode`.
            question: Text of the question.
            timer: Receives the time of each stage.

        Raises:
            RuntimeError: If the number of remaining tokens differs from what the compressor planned.
            ValueError: If the compressor looks a video up in a file that does not list it; see `ListedFrames`.
        """
        if not encoded.videos:
            return encoded.media
        steps = self.model.front_steps
        needs = [need for need in self.model.compressor.needs if isinstance(need, Question)]
        listed = [need for need in self.model.compressor.needs if isinstance(need, ListedFrames)]
        changes_frames = any(step.place == FRAMES for step in steps)
        about_question = self.model.evidence(question, needs) if needs else {}
        videos: list[Video] = []
        for video, path in zip(encoded.videos, encoded.paths, strict=True):
            marks: Evidence = {need: need.marks(path.name, len(video.times)).to(self.device) for need in listed}
            if changes_frames:
                marks = {**marks, FramesRead(): torch.tensor([len(video.times)])}
            videos.append(self.model.compress(video.features, {**video.evidence, **about_question, **marks}, timer))
            check_count(steps, videos[-1])
        return replace(encoded.media, visuals=videos)

    def _encode_videos(self, paths: Sequence[Path], timer: StageTimer) -> EncodedMedia:
        videos = self.features(paths, timer)
        hits = sum(video.is_from_cache for video in videos)
        damaged = {
            printable(str(path)): video.num_damaged
            for path, video in zip(paths, videos, strict=True)
            if video.num_damaged
        }
        media = Media(
            clips=tuple(ClipTimes(video.times, video.duration) for video in videos),
            cache_hits=hits,
            cache_misses=0 if self.cache is None else len(videos) - hits,
            damaged=damaged,
            reused_frames=sum(video.num_reused for video in videos),
            frames_sha256=frames_digest((path, video.indices) for path, video in zip(paths, videos, strict=True)),
        )
        return EncodedMedia(videos, media, paths)

    def features(self, paths: Sequence[Path], timer: StageTimer) -> list[VideoFeatures]:
        """Return the vision tower's features of videos, from the feature cache if possible.

        Args:
            paths: Paths of the videos.
            timer: Receives the time of each stage.

        Raises:
            VideoReadError: If a video cannot be read.
        """
        return [self._features(path, timer) for path in paths]

    def _features(self, path: Path, timer: StageTimer) -> VideoFeatures:
        with timer.on_host("wait_for_video"):
            loaded = self.loader.get(path)
        for stage, seconds in loaded.seconds.items():
            timer.add(stage, seconds)
        features = map_tensors(loaded.frames, lambda one: one.to(self.device, non_blocking=True))
        evidence: Evidence = {need: value.to(self.device, non_blocking=True) for need, value in loaded.evidence.items()}
        if not loaded.is_encoded:
            features, evidence = self.model.encode(features, self.loader.needs, timer)
        num_reused = _num_reused(loaded, features)
        if loaded.distinct and num_reused:
            features = map_tensors(features, partial(repeated, frames=loaded.distinct))
            evidence = {need: repeated(value, loaded.distinct) for need, value in evidence.items()}
        facts = (loaded.times, loaded.duration, loaded.is_encoded, loaded.num_damaged)
        video = VideoFeatures(features, *facts, evidence, num_reused, loaded.indices)
        if self.cache is not None and loaded.name is not None and not loaded.is_encoded:
            with timer.on_host("write_features"):
                self.cache.add(loaded.name, video)
                self.cache.remember(loaded.name, path, self.loader.needs, self.loader.steps)
        return video


def _num_reused(loaded: LoadedVideo, features: Tensors) -> int:
    """Return how many frames of a video were not encoded again: the loader left them out, or the model itself did."""
    if loaded.distinct is not None:
        return loaded.distinct.num_reused
    if loaded.is_encoded or not isinstance(features, Mapping):
        return 0
    return int(features[REUSED]) if REUSED in features else 0


def check_count(steps: Sequence[Step], video: Video) -> None:
    """Check that the compressors ran: as many tokens enter the language model as they planned.

    Args:
        steps: The steps before the language model.
        video: The compressed video.

    Raises:
        RuntimeError: If the numbers differ.
    """
    planned = planned_counts(steps, video.source_shape, video.num_sources)[-1]
    for expected, name in ((len(video.plan), "plan has"), (planned, "settings imply")):
        if expected is not None and video.num_tokens != expected:
            raise RuntimeError(
                f"{video.num_tokens} visual tokens enter the language model, but {steps[-1].compressor!r}'s {name} "
                f"{expected}"
            )
