"""The record of a run: its settings, and sums over the facts of all answers.

`kept.output` writes the record to a file beside lmms-eval's results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from llava.video_opening import VideoReadError, printable
from lmms_eval_stgridpool.kept.identity import answer_key, checkpoint_version, own_commit
from lmms_eval_stgridpool.kept.sample_facts import SampleFacts, add
from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.placement import Placement
from lmms_eval_stgridpool.run.unanswered import Unanswered, kind_of
from lmms_eval_stgridpool.run.versions import package_version, untested_versions
from stgridpool import Compressor
from stgridpool.retention import RetentionSums

_PACKAGES = ("stgridpool", "lmms_eval", "torch", "transformers", "accelerate", "decord", "av")
_OF_VIDEOS = (
    "frames",
    "visual_tokens",
    "newline_tokens",
    "feature_cache_hits",
    "feature_cache_misses",
    "reused_frames",
)
_COUNTS = (
    *("requests", "resumed_requests", "resumed_of_other_code", "answers_not_kept", "failed_requests"),
    *("blind_requests", "compressed_requests", "damaged_requests", "videos"),
)
_RECORDED = (
    *("requests", "resumed_requests", "resumed_of_other_code", "answers_not_kept", "failed_requests", "failures"),
    *("failed_videos", "damaged_requests", "damaged_videos", "blind_requests"),
)


@dataclass
class RankSums:
    """Sums over the answers of one rank. "Resumed" answers come from the journal of an earlier run.

    Attributes:
        rank: The rank.
        requests: Number of answers, including failed ones but not resumed ones.
        resumed_requests: Number of resumed answers.
        resumed_of_other_code: Number of resumed answers that other code or other package versions computed.
        answers_not_kept: Number of answers that could not be written to the journal.
        failed_requests: Number of questions that could not be answered.
        failures: Number of these by reason.
        failed_videos: Reason by video.
        blind_requests: Number of answers, including resumed ones, to questions for which the task showed nothing.
        compressed_requests: Number of answers, including resumed ones, from videos that the compressor reduced.
        damaged_requests: Number of answers, including resumed ones, from videos with signs of damage.
        damaged_videos: Number of signs of damage by video.
        videos: Number of videos encoded; a video that consecutive questions share counts once.
        totals: Frames, visual tokens and newline tokens of these videos, hits and misses of the feature cache, frames
            that equal an earlier one and were not encoded again, and tokens generated. If the compressor looks at the
            question, tokens are those of the first question about each video.
        seconds: Seconds by stage.
        retention: Visual tokens that were kept, over all answers, including resumed ones.
        first_token_seconds: Sums of `SampleFacts.first_token_seconds`.
        frames_sha256: The different `SampleFacts.frames_sha256` of all answers, including resumed ones.
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
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*_OF_VIDEOS, "output_tokens"), 0))
    seconds: dict[str, float] = field(default_factory=dict)
    retention: RetentionSums = field(default_factory=RetentionSums)
    first_token_seconds: dict[str, float] = field(default_factory=dict)
    frames_sha256: set[str] = field(default_factory=set)

    def add_resumed(self, facts: SampleFacts) -> None:
        """Count a resumed answer."""
        self.resumed_requests += 1
        self._add_shown(facts)

    def add_answer(self, facts: SampleFacts) -> None:
        """Count an answer."""
        self.requests += 1
        self._add_shown(facts)
        self.failed_requests += facts.failure is not None
        self.totals["output_tokens"] += facts.output_tokens or 0
        add(self.seconds, facts.seconds)
        add(self.first_token_seconds, facts.first_token_seconds())

    def add_failures(self, error: Unanswered, questions: int) -> None:
        """Count questions that could not be answered by reason; `add_answer` counts each of them, too."""
        add(self.failures, {kind_of(error): questions})
        if isinstance(error, VideoReadError):
            self.failed_videos[printable(error.path)] = error.reason

    def _add_shown(self, facts: SampleFacts) -> None:
        self.blind_requests += facts.is_blind
        self.damaged_requests += bool(facts.damaged_videos)
        self.damaged_videos |= facts.damaged_videos
        self.frames_sha256 |= {facts.frames_sha256} - {""}
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
        reused_frames: int = 0,
    ) -> None:
        """Count videos that were encoded together."""
        self.videos += videos
        counts = (frames, visual_tokens, newline_tokens, feature_cache_hits, feature_cache_misses, reused_frames)
        add(self.totals, dict(zip(_OF_VIDEOS, counts, strict=True)))

    def merge(self, other: "RankSums") -> None:
        """Add the sums of another rank."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("failures", "totals", "seconds", "first_token_seconds"):
            add(getattr(self, name), getattr(other, name))
        self.failed_videos |= other.failed_videos
        self.damaged_videos |= other.damaged_videos
        self.frames_sha256 |= other.frames_sha256
        self.retention.merge(other.retention)


def describe(
    arguments: Arguments, placement: Placement, model: Mapping[str, Any], compressor: Compressor, shares_prefix: bool
) -> dict[str, Any]:
    """Describe the settings of a run, for its record.

    Args:
        arguments: The arguments of the model.
        placement: Where this rank runs.
        model: Facts about the loaded model, see `VideoModel.facts`.
        compressor: The compressor.
        shares_prefix: Whether questions about one video share its prefix.
    """
    device = placement.device
    return {
        "model": arguments.MODEL,
        "checkpoint": arguments.pretrained,
        "checkpoint_version": checkpoint_version(arguments.pretrained, model["revision"]),
        "compressor": repr(compressor),
        "compressor_files": {
            repr(need): need.digest() for need in sorted(compressor.needs, key=repr) if need.from_file
        },
        "shares_prefix": shares_prefix,
        **arguments.recorded(),
        "damaged_videos_are": {"answer": "answered", "fail": "failed"}[arguments.damaged_videos],
        "dtype": str(placement.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_processes": placement.world_size,
        **{name: value for name, value in model.items() if name != "revision"},
    }


def run_record(
    setup: Mapping[str, Any],
    parts: Sequence[RankSums],
    wall_seconds: float,
    fingerprints: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put together the record of a run; it names no compressor if no answer came from a compressed video.

    Args:
        setup: The settings of the run: checkpoint, compressor, ...
        parts: The sums of each rank.
        wall_seconds: Seconds from the construction of the model to the last answer, of the slowest rank.
        fingerprints: Digests of the files that the run used, see `kept.fingerprints`.
    """
    total = RankSums(rank=-1)
    for part in parts:
        total.merge(part)
    answered = total.requests - total.failed_requests
    if total.compressed_requests == 0 < answered + total.resumed_requests:
        setup = {**setup, "compressor": None}
    frames, visual_tokens = total.totals["frames"], total.totals["visual_tokens"]
    return {
        **setup,
        "versions": {name: package_version(name) for name in _PACKAGES},
        "untested_versions": untested_versions(),
        "git_commit": own_commit(),
        "fingerprints": {**(fingerprints or {}), "frame_indices": answer_key({"frames": sorted(total.frames_sha256)})},
        **{name: getattr(total, name) for name in _RECORDED},
        "videos_encoded": total.videos,
        **total.totals,
        "tokens_per_frame": visual_tokens / frames if frames else None,
        "tokens_per_video": visual_tokens / total.videos if total.videos else None,
        "retention_mean_of_questions": total.retention.mean(),
        "retention_total": total.retention.total(),
        "mean_first_token_seconds": {name: spent / answered for name, spent in total.first_token_seconds.items()},
        "seconds": total.seconds,
        "wall_seconds": wall_seconds,
        "ranks": [{name: value for name, value in asdict(part).items() if name != "frames_sha256"} for part in parts],
    }
