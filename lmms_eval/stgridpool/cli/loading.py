"""The checkpoint of a command that asks a model about one video."""

from typing import TYPE_CHECKING

from lmms_eval_stgridpool.cli.output import logs_on_stderr

if TYPE_CHECKING:
    from lmms_eval_stgridpool.evaluated_model import EvaluatedModel

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


def load_checkpoint(checkpoint: str, frames: int, model_args: str, command: str) -> "EvaluatedModel":
    """Load the model that runs a checkpoint, without a compressor.

    Args:
        checkpoint: Folder or hub name; its format decides which model runs it.
        frames: Maximum number of frames of a video.
        model_args: Further arguments of the model, as for ``--model_args``.
        command: Name of the command, for messages.

    Raises:
        ValueError: If the checkpoint or an argument cannot work, or an argument would have no effect here.
    """
    from lmms_eval_stgridpool.run.checkpoint_checks import NATIVE, model_for, read_checkpoint_settings  # noqa: PLC0415
    from lmms_eval_stgridpool.run.model_args import parse_model_args  # noqa: PLC0415

    further = parse_model_args(model_args)
    for name in further:
        if name in OWN_OPTIONS:
            raise ValueError(f"{name} in --model_args would be ignored: use {OWN_OPTIONS[name]}")
        if name in WITHOUT_EFFECT:
            raise ValueError(f"{name} in --model_args has no effect on stgridpool {command}: leave it out")
    given = {"pretrained": checkpoint, "max_frames_num": frames, **further}
    _, settings = read_checkpoint_settings(checkpoint)
    if model_for(settings, checkpoint) == NATIVE:
        with logs_on_stderr():
            from lmms_eval_stgridpool.video_hf import VideoHf  # noqa: PLC0415

        return VideoHf(compressor="none", **given)
    with logs_on_stderr():
        from lmms_eval_stgridpool.llava_video import LlavaVideo  # noqa: PLC0415

    return LlavaVideo(compressor="bilinear", **given)
