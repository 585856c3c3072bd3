"""``stgridpool show``: where the tokens of a video come from, as a page or a picture."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.loading import load_checkpoint

if TYPE_CHECKING:
    from lmms_eval_stgridpool.comparison.choice import Choice

VIDEO = typer.Argument(parser=paths.path, metavar="VIDEO", help="A video file, or a folder of pictures.")
CHECKPOINT = typer.Option(
    parser=paths.folder_or_name, metavar="FOLDER_OR_NAME", help="Its format decides which model runs it."
)
COMPRESSOR = typer.Option("--compressor", "-c", help='NAME or NAME:{"option":value}; may be repeated.')
RETENTION = typer.Option(help="Share of the checkpoint's own tokens that every method keeps.")
RETENTION_OF = typer.Option(help="Definition of retention: entering_llm, layer_average, last_layer or kv_read.")
QUESTION = typer.Option(help="For methods that look at the question.")
FRAMES = typer.Option("--frames", help="Maximum number of frames (max_frames_num).")
OUTPUT = typer.Option("--output", "-o", parser=paths.path, help="A page (.html) or a picture (.png); may be repeated.")
HEAT_MAPS = typer.Option("--heat-maps", help="Draw norms and attention into the picture, too; the page has them.")
COLUMNS = typer.Option(min=1, help="Maximum number of frames in the picture.")
MODEL_ARGS = typer.Option("--model_args", "--model-args", help="Further arguments of the model: KEY=VALUE,...")
SUFFIXES = (".html", ".png")


def show(
    video: Annotated[Path, VIDEO],
    checkpoint: Annotated[str, CHECKPOINT],
    output: Annotated[list[Path], OUTPUT],
    compressor: Annotated[list[str] | None, COMPRESSOR] = None,
    retention: Annotated[float | None, RETENTION] = None,
    retention_of: Annotated[str, RETENTION_OF] = "last_layer",
    question: Annotated[str, QUESTION] = "What happens in the video?",
    frames: Annotated[int, FRAMES] = 32,
    columns: Annotated[int, COLUMNS] = 10,
    heat_maps: Annotated[bool, HEAT_MAPS] = False,
    model_args: Annotated[str, MODEL_ARGS] = "",
) -> None:
    """Draw where the tokens of a video come from: in the page, point at a token to see its sources.

    Methods stand side by side. Those that act inside the language model are shown with what survives its last layer.
    """
    from lmms_eval_stgridpool.cli.quiet import quiet  # noqa: PLC0415

    quiet()
    from llava.video import VideoReadError  # noqa: PLC0415
    from lmms_eval_stgridpool.answers.tracing import reference_of, trace  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.choice import Choice  # noqa: PLC0415
    from stgridpool.finite import NonFiniteError  # noqa: PLC0415
    from stgridpool.show import contact_sheet, write_page  # noqa: PLC0415

    _check_files(video, output)
    choices = [Choice.parse(text) for text in compressor or ["st_gridpool"]]
    model = load_checkpoint(checkpoint, frames, model_args, "show", choices if retention is None else ())
    try:
        if retention is not None:
            reference = reference_of(model.encoder, video)
            choices = [one.at(retention, retention_of, reference) for one in choices]
        methods = {name: one.build() for name, one in zip(_names(choices), choices, strict=True)}
        traced = trace(model.encoder, video, question, methods)
    except (VideoReadError, NonFiniteError) as error:
        raise ValueError(str(error)) from error
    for path in output:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".html":
            write_page(path, traced.frames, traced.traces, traced.times, video.name)
        else:
            contact_sheet(traced.frames, traced.traces, traced.times, heat_maps, columns).save(path, optimize=True)
        typer.echo(path)


def _check_files(video: Path, output: Sequence[Path]) -> None:
    if not video.exists():
        raise ValueError(f"there is no video {video} (working directory: {Path.cwd()})")
    for path in output:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"--output must end with {' or '.join(SUFFIXES)}, got {path}")


def _names(choices: Sequence["Choice"]) -> list[str]:
    """Return a name for each method: without its options, unless two have the same."""
    counts = Counter(one.name for one in choices)
    return [one.name if counts[one.name] == 1 else one.folder for one in choices]
