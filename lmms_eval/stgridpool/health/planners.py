"""The planner for a checkpoint of any format, and the numbers of frames that it is asked about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llava.video import sampled_indices
from lmms_eval_stgridpool.health.planned import Outline, Planned
from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.run.checkpoint_checks import NATIVE, model_for, read_checkpoint_settings
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from stgridpool import Compressor


class AnyPlanner(Protocol):
    """Counts tokens for one checkpoint; see `Planner` and `NativePlanner`."""

    @property
    def longest(self) -> int | None:
        """Longest prompt, in tokens."""

    @property
    def most_sampled(self) -> int:
        """Maximum number of frames that are sampled, however long a video is."""

    def outline(self, frames: int) -> Outline:
        """Return the sizes of the video with a number of frames."""

    def plan(self, compressor: Compressor, frames: int) -> Planned:
        """Count what a method leaves of a number of frames."""

    def fit(self, compressor: Compressor, most_tokens: int) -> int:
        """Return the largest number of frames of which at most `most_tokens` enter the language model."""


@dataclass(frozen=True, eq=False)
class Counting:
    """A video to plan.

    Attributes:
        model: The lmms-eval model that runs the checkpoint.
        planner: Counts its tokens.
        counts: Numbers of frames, each once.
    """

    model: str
    planner: AnyPlanner
    counts: Sequence[int]


def counting(video: Path, given: Mapping[str, Any], most_frames: Sequence[int]) -> Counting:
    """Find the planner for a checkpoint, and the numbers of frames that it samples from a video.

    Args:
        video: A file, or a folder of pictures.
        given: Arguments of the model that runs the checkpoint, `pretrained` among them.
        most_frames: Largest numbers of frames; empty for the checkpoint's own.

    Raises:
        ValueError: If the checkpoint or an argument cannot work.
        VideoReadError: If the video cannot be read.
    """
    _, settings = read_checkpoint_settings(given["pretrained"])
    model = model_for(settings, given["pretrained"])
    if model == NATIVE:
        from lmms_eval_stgridpool.health.native_planning import NativePlanner  # noqa: PLC0415 - imports transformers

        native = NativePlanner.of(video, NativeArguments.parse(given), most_frames or [None])
        return Counting(model, native, native.counts)
    arguments = LlavaArguments.parse(given).for_checkpoint(settings)
    options = (arguments.fps, arguments.force_sample, arguments.sampling or "index")
    counts = [len(sampled_indices(video, most, *options)) for most in most_frames or [arguments.most_frames]]
    planner = Planner.of(arguments.pretrained, arguments.overwrites())
    return Counting(model, planner, list(dict.fromkeys(counts)))
