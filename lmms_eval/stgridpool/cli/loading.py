"""The checkpoint of a command that asks a model about one video."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmms_eval_stgridpool.cli.output import logs_on_stderr

if TYPE_CHECKING:
    from lmms_eval_stgridpool.comparison.choice import Choice
    from lmms_eval_stgridpool.evaluated_model import EvaluatedModel
    from lmms_eval_stgridpool.health.planning import Planner

OWN_OPTIONS = {
    "pretrained": "--checkpoint",
    "max_frames_num": "--frames",
    **dict.fromkeys(("compressor", "compressor_args"), "--compressor"),
}
"""Options of this command by the argument of the model that they set."""
WITHOUT_EFFECT = (
    *("share_prefix", "questions_per_batch", "deterministic", "prompt_style", "max_failed", "answer_without_visuals"),
    *("resume_dir", "resume_any_version", "allow_use_cache", "barrier_timeout_s", "batch_size"),
)
"""Arguments of the model about runs of lmms-eval."""


def load_checkpoint(
    checkpoint: str, frames: int, model_args: str, command: str, choices: Sequence["Choice"] = ()
) -> "EvaluatedModel":
    """Load the model that runs a checkpoint, without a compressor.

    Args:
        checkpoint: Folder or hub name; its format decides which model runs it.
        frames: Maximum number of frames of a video.
        model_args: Further arguments of the model, as for ``--model_args``.
        command: Name of the command, for messages.
        choices: Methods that must work with some number of frames; checked before weights are read, except for native
            models, whose sizes depend on the video.

    Raises:
        ValueError: If the checkpoint, an argument or a method cannot work, or an argument would have no effect here.
    """
    from lmms_eval_stgridpool.run.checkpoint_checks import NATIVE  # noqa: PLC0415
    from lmms_eval_stgridpool.run.checks import CheckedModel  # noqa: PLC0415
    from lmms_eval_stgridpool.run.model_args import parse_model_args  # noqa: PLC0415

    further = parse_model_args(model_args)
    for name in further:
        if name in OWN_OPTIONS:
            raise ValueError(f"{name} in --model_args would be ignored: use {OWN_OPTIONS[name]}")
        if name in WITHOUT_EFFECT:
            raise ValueError(f"{name} in --model_args has no effect on stgridpool {command}: leave it out")
    given = {"pretrained": checkpoint, "max_frames_num": frames, **further}
    checked = CheckedModel.of({**given, "compressor": "none"}, needs_settings=True)
    planner = checked.planner()
    if planner is not None:
        for choice in choices:
            _check_choice(choice, planner, frames)
    if checked.arguments.MODEL == NATIVE:
        with logs_on_stderr():
            from lmms_eval_stgridpool.video_hf import VideoHf  # noqa: PLC0415

        return VideoHf(compressor="none", **given)
    with logs_on_stderr():
        from lmms_eval_stgridpool.llava_video import LlavaVideo  # noqa: PLC0415

    return LlavaVideo(compressor="bilinear", **given)


def _check_choice(choice: "Choice", planner: "Planner", most_frames: int) -> None:
    """Check that a method works with some number of frames, up to `most_frames`, or may meet its budget with some.

    Raises:
        ValueError: If it does not; the message is that for one frame.
    """
    from stgridpool.budget import BudgetError  # noqa: PLC0415

    method = choice.build()
    for frames in range(most_frames, 0, -1):
        try:
            planner.plan(method, frames)
        except BudgetError:
            return
        except ValueError as error:
            if frames == 1:
                raise ValueError(f"{choice.folder}: {error}") from error
        else:
            return
