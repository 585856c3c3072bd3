"""What a run did: the facts of each answer, in lmms-eval's samples file, and their sums, in a file beside its results.

lmms-eval lets a model add facts to each sample, and nothing to the results file. Where the sums go is said in
`output`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import TokenCounts

from llava.video_opening import VideoReadError, printable
from lmms_eval_stgridpool.kept.identity import checkpoint_version, git_commit
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.placement import Placement
from lmms_eval_stgridpool.run.unanswered import UnansweredError, kind_of
from lmms_eval_stgridpool.run.versions import package_version, untested_versions
from stgridpool import Compressor
from stgridpool.finite import NonFiniteError
from stgridpool.retention import RetentionSums, VisualCounts, fractions

_PACKAGES = ("stgridpool", "lmms_eval", "torch", "transformers", "accelerate", "decord", "av")
_OF_VIDEOS = ("frames", "visual_tokens", "newline_tokens", "feature_cache_hits", "feature_cache_misses")
_SUMMED = (*_OF_VIDEOS, "output_tokens")


@dataclass
class SampleFacts(TokenCounts):
    """Facts of one answer; lmms-eval writes them as the sample's ``token_counts``, for every process.

    Attributes:
        input_tokens: Tokens that entered the language model: text, visual and newline tokens.
        output_tokens: Tokens generated.
        frames: Video frames that were encoded for the question (or for its neighbour about the same video).
        visual_tokens: Tokens of its videos, newline tokens apart.
        newline_tokens: Newline tokens.
        full_tokens: What the checkpoint's own pooling would give, newline tokens apart.
        full_newlines: Newline tokens that would come with it.
        kept_tokens: Tokens left, by each definition of `stgridpool.retention`.
        compressor: What reduced them; empty where there was nothing to reduce.
        failure: Why there is no answer, or None.
        is_blind: Whether it was answered though its task shows nothing with it.
        seconds: Seconds by stage. What a batch of questions shares is divided among them; a video that several batches
            share is counted for the first.
        answered_together: Questions of the batch that this one was answered in.
        damaged_videos: Signs of damage by path, of those of its videos that gave any.
    """

    frames: int = 0
    visual_tokens: int = 0
    newline_tokens: int = 0
    full_tokens: int = 0
    full_newlines: int = 0
    kept_tokens: dict[str, float] = field(default_factory=dict)
    compressor: str = ""
    failure: str | None = None
    is_blind: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    answered_together: int = 1
    damaged_videos: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "SampleFacts":
        """Facts as `asdict` gave them, perhaps in another version: unknown ones are left out.

        Raises:
            TypeError: If they are no mapping, or one is of another type.
        """
        if not isinstance(facts, Mapping):
            raise TypeError(f"facts cannot be {facts!r}")
        known = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        for name, default in asdict(cls()).items():
            value = known.get(name, default)
            kinds = (type(default),) if default is not None else (int, str, type(None))
            numbers = value.values() if isinstance(value, dict) else ()
            if type(value) not in kinds or not all(isinstance(number, int | float) for number in numbers):
                raise TypeError(f"{name} cannot be {value!r}")
        return cls(**known)

    def add_counts(self, counts: VisualCounts | None) -> None:
        """Add the visual tokens of one prompt."""
        if counts is not None:
            self.full_tokens += counts.full
            self.full_newlines += counts.full_newlines
            _add(self.kept_tokens, counts.kept())

    def first_token_seconds(self) -> dict[str, float]:
        """Time to the first token: in the language model alone, and with vision tower, projector and compressor.

        Reading the video, which runs ahead, is in neither. Of a prefix that questions share only the first batch of
        them pays, and a batch gets its first tokens at the same time; for times as papers give them, set share_prefix
        to False.
        """
        if self.failure is not None or "prefill" not in self.seconds:
            return {}
        spent = [self.seconds.get(stage, 0.0) for stage in ("prefill", "vision", "projector", "compress")]
        return {
            "language_model": spent[0] * self.answered_together,
            "with_vision_tower": sum(spent) * self.answered_together,
        }

    def to_dict(self) -> dict[str, Any]:
        """All facts, and four that follow from them."""
        return {
            **asdict(self),
            "first_token_seconds": self.first_token_seconds(),
            "retention": fractions(self.kept_tokens, self.full_tokens, self.full_newlines),
            "failed": self.failure is not None,
            "tokens_per_frame": self.visual_tokens / self.frames if self.frames else None,
        }


@dataclass
class RankSums:
    """Sums over the answers of one process.

    Attributes:
        rank: The process.
        requests: Answers given, failed ones included.
        resumed_requests: Answers taken from the journal of an earlier run; only `retention` counts them, too.
        resumed_of_other_code: Those among them that other code or other versions of packages have found.
        answers_not_kept: Answers that could not be written to the journal.
        failed_requests: Questions that could not be answered.
        failures: How many, by reason.
        failed_videos: Reason by video.
        blind_requests: Answers to questions with which their task shows nothing, those of earlier runs included.
        compressed_requests: Answers from videos, which the compressor reduced; those of earlier runs included.
        damaged_requests: Answers from videos that gave signs of damage; those of earlier runs included.
        damaged_videos: Signs of damage of each of them.
        videos: Videos encoded; one that neighbouring questions share counts once.
        totals: Frames, visual and newline tokens of those videos, how often their features came from the feature cache
            and how often they did not, and tokens generated.
        seconds: Seconds by stage.
        retention: Visual tokens left, over all answers, also those of earlier runs.
        first_token_seconds: Sums of `SampleFacts.first_token_seconds`.
    """

    rank: int
    requests: int = 0
    resumed_requests: int = 0
    resumed_of_other_code: int = 0
    answers_not_kept: int = 0
    failed_requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    failed_videos: dict[str, str] = field(default_factory=dict)
    blind_requests: int = 0
    compressed_requests: int = 0
    damaged_requests: int = 0
    damaged_videos: dict[str, int] = field(default_factory=dict)
    videos: int = 0
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMMED, 0))
    seconds: dict[str, float] = field(default_factory=dict)
    retention: RetentionSums = field(default_factory=RetentionSums)
    first_token_seconds: dict[str, float] = field(default_factory=dict)

    def add_resumed(self, facts: SampleFacts) -> None:
        """Count an answer of an earlier run."""
        self.resumed_requests += 1
        self._add_shown(facts)

    def add_answer(self, facts: SampleFacts) -> None:
        """Count an answer."""
        self.requests += 1
        self._add_shown(facts)
        self.failed_requests += facts.failure is not None
        self.totals["output_tokens"] += facts.output_tokens or 0
        _add(self.seconds, facts.seconds)
        _add(self.first_token_seconds, facts.first_token_seconds())

    def add_failures(self, error: VideoReadError | NonFiniteError | UnansweredError, questions: int) -> None:
        """Count questions that could not be answered, which `add_answer` counts as well, by reason."""
        _add(self.failures, {kind_of(error): questions})
        if isinstance(error, VideoReadError):
            self.failed_videos[printable(error.path)] = error.reason

    def _add_shown(self, facts: SampleFacts) -> None:
        self.blind_requests += facts.is_blind
        self.damaged_requests += bool(facts.damaged_videos)
        self.damaged_videos |= facts.damaged_videos
        self.compressed_requests += bool(facts.compressor and facts.failure is None)
        self.retention.add(facts.kept_tokens, facts.full_tokens, facts.full_newlines)

    def add_videos(
        self,
        videos: int,
        frames: int,
        visual_tokens: int,
        newline_tokens: int,
        feature_cache_hits: int = 0,
        feature_cache_misses: int = 0,
    ) -> None:
        """Count videos that were encoded together."""
        self.videos += videos
        counts = (frames, visual_tokens, newline_tokens, feature_cache_hits, feature_cache_misses)
        _add(self.totals, dict(zip(_OF_VIDEOS, counts, strict=True)))


def describe(
    arguments: Arguments, placement: Placement, model: Mapping[str, Any], compressor: Compressor, shares_prefix: bool
) -> dict[str, Any]:
    """Describe what a run is made of, for its record; `model` are the facts of the loaded model."""
    device = placement.device
    return {
        "model": "llava_video",
        "checkpoint": arguments.pretrained,
        "checkpoint_version": checkpoint_version(arguments.pretrained, model["revision"]),
        "compressor": repr(compressor),
        "shares_prefix": shares_prefix,
        "max_frames_num": arguments.max_frames_num,
        "fps": arguments.fps,
        "sampling": arguments.sampling,
        "damaged_videos_are": {"answer": "answered", "fail": "failed"}[arguments.damaged_videos],
        "force_sample": arguments.force_sample,
        "add_time_instruction": arguments.add_time_instruction,
        "prompt_style": arguments.prompt_style,
        "conv_template": arguments.conv_template,
        "video_decode_backend": arguments.video_decode_backend,
        "dtype": str(placement.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "deterministic": arguments.deterministic,
        "triton_kernels": arguments.triton_kernels,
        "resume_any_version": arguments.resume_any_version,
        "num_processes": placement.world_size,
        **{name: value for name, value in model.items() if name != "revision"},
    }


def run_record(setup: Mapping[str, Any], parts: Sequence[RankSums], wall_seconds: float) -> dict[str, Any]:
    """The record of a run; it names no compressor if all answers were found without videos.

    Args:
        setup: What was run: checkpoint, compressor, ...
        parts: The sums of every process.
        wall_seconds: From the model's construction to the last answer, of the slowest process.
    """
    totals: dict[str, int] = {}
    seconds: dict[str, float] = {}
    first_token: dict[str, float] = {}
    failures: dict[str, int] = {}
    failed_videos: dict[str, str] = {}
    damaged_videos: dict[str, int] = {}
    retention = RetentionSums()
    for part in parts:
        _add(totals, part.totals)
        _add(seconds, part.seconds)
        _add(first_token, part.first_token_seconds)
        _add(failures, part.failures)
        failed_videos |= part.failed_videos
        damaged_videos |= part.damaged_videos
        retention.merge(part.retention)
    videos = sum(part.videos for part in parts)
    answered = sum(part.requests - part.failed_requests for part in parts)
    resumed = sum(part.resumed_requests for part in parts)
    compressed = sum(part.compressed_requests for part in parts)
    if compressed == 0 < answered + resumed:
        setup = {**setup, "compressor": None}
    return {
        **setup,
        "versions": {name: package_version(name) for name in _PACKAGES},
        "untested_versions": untested_versions(),
        "git_commit": git_commit(Path(__file__)),
        "requests": sum(part.requests for part in parts),
        "resumed_requests": resumed,
        "resumed_of_other_code": sum(part.resumed_of_other_code for part in parts),
        "answers_not_kept": sum(part.answers_not_kept for part in parts),
        "failed_requests": sum(part.failed_requests for part in parts),
        "failures": failures,
        "failed_videos": failed_videos,
        "damaged_requests": sum(part.damaged_requests for part in parts),
        "damaged_videos": damaged_videos,
        "blind_requests": sum(part.blind_requests for part in parts),
        "videos_encoded": videos,
        **totals,
        "tokens_per_frame": totals["visual_tokens"] / totals["frames"] if totals["frames"] else None,
        "tokens_per_video": totals["visual_tokens"] / videos if videos else None,
        "retention_mean_of_questions": retention.mean(),
        "retention_total": retention.total(),
        "mean_first_token_seconds": {name: spent / answered for name, spent in first_token.items()},
        "seconds": seconds,
        "wall_seconds": wall_seconds,
        "ranks": [asdict(part) for part in parts],
    }


def _add(sums: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + value
