"""``stgridpool ask``: questions about one video."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.loading import load_checkpoint
from lmms_eval_stgridpool.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from lmms_eval_stgridpool.answers.asking import Replies

VIDEO = typer.Argument(parser=paths.path, metavar="VIDEO", help="A video file, or a folder of pictures.")
QUESTIONS = typer.Argument(metavar="QUESTION", help="Questions about it; they share one prefix.")
CHECKPOINT = typer.Option(
    parser=paths.folder_or_name, metavar="FOLDER_OR_NAME", help="Its format decides which model runs it."
)
COMPRESSOR = typer.Option("--compressor", "-c", help='NAME or NAME:{"option":value}.')
COMPARE = typer.Option("--compare", help="Answer with this method, too, side by side; may be repeated.")
FRAMES = typer.Option("--frames", help="Maximum number of frames (max_frames_num).")
LONGEST = typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")
MODEL_ARGS = typer.Option("--model_args", "--model-args", help="Further arguments of the model: KEY=VALUE,...")


def ask(
    video: Annotated[Path, VIDEO],
    questions: Annotated[list[str], QUESTIONS],
    checkpoint: Annotated[str, CHECKPOINT],
    compressor: Annotated[str | None, COMPRESSOR] = None,
    compare: Annotated[list[str] | None, COMPARE] = None,
    frames: Annotated[int, FRAMES] = 64,
    max_new_tokens: Annotated[int, LONGEST] = 128,
    model_args: Annotated[str, MODEL_ARGS] = "",
    as_json: AsJson = False,
) -> None:
    """Answer questions about a video, and show tokens and seconds of each stage.

    The video is read and encoded once, and prefilled once per method; a method that looks at the question is prefilled
    for every question.
    """
    from lmms_eval_stgridpool.cli.quiet import quiet  # noqa: PLC0415

    quiet()
    from llava.video import VideoReadError  # noqa: PLC0415
    from lmms_eval_stgridpool.answers.asking import ask as answer  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.choice import Choice  # noqa: PLC0415
    from stgridpool.finite import NonFiniteError  # noqa: PLC0415

    names = [*([compressor] if compressor is not None or not compare else []), *(compare or [])]
    choices = [Choice.parse("st_gridpool" if name is None else name) for name in names]
    if not video.exists():
        raise ValueError(f"there is no video {video} (working directory: {Path.cwd()})")
    model = load_checkpoint(checkpoint, frames, model_args, "ask", choices)
    methods = {choice.folder: choice.build() for choice in choices}
    try:
        replies = answer(model.encoder, video, questions, methods, max_new_tokens)
    except (VideoReadError, NonFiniteError) as error:
        raise ValueError(str(error)) from error
    if as_json:
        print_json(replies)
    else:
        _show(replies)


def _show(replies: "Replies") -> None:
    names = [reply.name for reply in replies.replies]
    answers = zip(*(reply.answers for reply in replies.replies), strict=True)
    print_table(
        ("question", *names), ((question, *row) for question, row in zip(replies.questions, answers, strict=True))
    )
    facts = [
        ("tokens", *(f"{one.visual_tokens} + {one.newline_tokens} newlines" for one in replies.replies)),
        ("retention, last layer", *(f"{one.retention.get('last_layer', 1):.1%}" for one in replies.replies)),
        ("prefix", *("shared" if one.shares_prefix else "per question" for one in replies.replies)),
    ]
    stages = dict.fromkeys(stage for reply in replies.replies for stage in reply.seconds)
    facts += [(f"{stage}, s", *(f"{one.seconds.get(stage, 0):.3f}" for one in replies.replies)) for stage in stages]
    print_table((f"{replies.replies[0].frames} frames", *names), facts)
    shared = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in replies.seconds.items())
    typer.echo(f"once for all: {shared}")
