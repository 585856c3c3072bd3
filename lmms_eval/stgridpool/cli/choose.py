"""``stgridpool choose``: which method and rate suit a user's own videos."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.checking import check_first
from lmms_eval_stgridpool.cli.launching import launch, option_words
from lmms_eval_stgridpool.cli.output import AsJson, logs_on_stderr, print_json, print_table
from lmms_eval_stgridpool.cli.resuming import resumable

if TYPE_CHECKING:
    from lmms_eval_stgridpool.comparison.choosing import Chosen
    from lmms_eval_stgridpool.comparison.settings import Mean, Setting

INPUTS = typer.Argument(
    parser=paths.path, metavar="VIDEOS_OR_TABLE", help="Videos, folders of videos, or a table (clips.csv)."
)
CHECKPOINT = typer.Option(
    parser=paths.folder_or_name,
    metavar="FOLDER_OR_NAME",
    help="A LLaVA-Video, LLaVA-OneVision, NVILA or native checkpoint.",
)
DEFAULT_METHODS = ("st_gridpool", "average", "vidcom2", "random")
DEFAULT_RETENTION = (0.5, 0.25)
METHODS = typer.Option(
    "--methods",
    "-m",
    help=f'NAME or NAME:{{"option":value}}; may be repeated. Default: {", ".join(DEFAULT_METHODS)}.',
)
RETENTION = typer.Option(help="Share of the model's own tokens to keep; may be repeated. Default: 0.5 and 0.25.")
RETENTION_OF = typer.Option(help="Definition of retention: entering_llm, layer_average, last_layer or kv_read.")
FRAMES = typer.Option("--frames", help="Maximum number of frames (max_frames_num).")
MODEL_ARGS = typer.Option("--model_args", "--model-args", help="Further arguments of the model: KEY=VALUE,...")
TOLERANCE = typer.Option(help="Largest loss to accept, 0 to 1; default: 0.02 of accuracy, 0.1 of agreement.")
SAVE = typer.Option("--save", help="What the setting should save: seconds or cache.")
OUTPUT = typer.Option(
    "--output",
    "-o",
    parser=paths.path,
    help="Where results go; default: logs/runs/INPUT/choose_CHECKPOINT_KEY=VALUE_...",
)
PROCESSES = typer.Option("--processes", "-n", min=1, help="Number of ranks, one GPU each.")

COLUMNS = ("setting", "accuracy", "agreement", "loss", "seconds", "cache, MB", "GPU, MB", "best trade-off")


def choose(
    inputs: Annotated[list[Path], INPUTS],
    checkpoint: Annotated[str, CHECKPOINT],
    methods: Annotated[list[str] | None, METHODS] = None,
    retention: Annotated[list[float] | None, RETENTION] = None,
    retention_of: Annotated[str, RETENTION_OF] = "layer_average",
    frames: Annotated[int | None, FRAMES] = None,
    model_args: Annotated[str, MODEL_ARGS] = "",
    tolerance: Annotated[float | None, TOLERANCE] = None,
    save: Annotated[str, SAVE] = "seconds",
    output: Annotated[Path | None, OUTPUT] = None,
    processes: Annotated[int, PROCESSES] = 1,
    as_json: AsJson = False,
) -> None:
    """Run methods at several rates over your own videos, and recommend one of them.

    A table has the columns video and, where known, question, options and answer; videos without questions are asked a
    few general ones. Where answers are known, a setting must keep the accuracy, elsewhere the words of the uncompressed
    model's answers. Intervals are 95 %, and count the questions of one video as one draw.
    """
    given = _joined(f"pretrained={checkpoint}", "" if frames is None else f"max_frames_num={frames}")
    compared, shares = methods or list(DEFAULT_METHODS), retention or list(DEFAULT_RETENTION)
    wanted = tuple(compared), _joined(given, model_args), tuple(shares), retention_of, True, processes
    check_first("stgridpool choose", partial(_check, wanted, inputs, output, tolerance, save))
    with logs_on_stderr():
        from lmms_eval_stgridpool.comparison.choice import Choice  # noqa: PLC0415
        from lmms_eval_stgridpool.comparison.choosing import Chooser  # noqa: PLC0415
    from lmms_eval_stgridpool.run.checkpoint_checks import model_for, read_checkpoint_settings  # noqa: PLC0415

    if output is None:
        named: dict[str, object] = {"frames": frames, "retention_of": retention_of, "tolerance": tolerance}
        named |= {"save": save, "methods": methods, "retention": retention}
        output, model_args = _default_places(inputs, checkpoint, model_args, named)
    _, settings = read_checkpoint_settings(checkpoint)
    asked = (
        tuple(inputs),
        model_for(settings, checkpoint),
        _joined(given, model_args),
        tuple(map(Choice.parse, compared)),
    )
    chooser = Chooser(*asked, tuple(shares), retention_of, output, tolerance, save)
    if processes > 1:
        words: dict[str, object] = {"--checkpoint": checkpoint, "--retention-of": retention_of, "--save": save}
        words |= {"--methods": compared, "--retention": shares, "--frames": frames}
        words |= {"--model_args": model_args or None, "--tolerance": tolerance, "--output": output, "--json": as_json}
        launch(processes, "choose", [*map(str, inputs), *option_words(words)], chooser.kept)
    with resumable("choose", chooser.kept):
        found = chooser.run()
    if found is not None and as_json:
        print_json(found)
    elif found is not None:
        _show(found)
        typer.echo(f"Results: {output}")


def _check(compared: tuple[Any, ...], *search: Any) -> tuple[str, ...]:
    """Check a search; see `Compared` and `check_search`."""
    from lmms_eval_stgridpool.run.sweep_checks import Compared, check_search  # noqa: PLC0415

    return check_search(Compared(*compared), *search)


def _joined(*arguments: str) -> str:
    """Join arguments of the model, without empty ones."""
    return ",".join(argument for argument in arguments if argument)


def _default_places(
    inputs: list[Path], checkpoint: str, model_args: str, options: dict[str, object]
) -> tuple[Path, str]:
    """Return where results go unless told otherwise, and the arguments with a folder for answers beside it.

    A search with other methods then asks nothing again.
    """
    with logs_on_stderr():
        from lmms_eval_stgridpool.comparison.choosing import output_folder  # noqa: PLC0415

    output = output_folder(Path("logs") / "runs", inputs, checkpoint, model_args, options)
    if "resume_dir=" not in model_args:
        model_args = _joined(model_args, f"resume_dir={output.parent / 'answers'}")
    return output, model_args


def _show(found: "Chosen") -> None:
    print_table(COLUMNS, map(_row, found.settings))
    for remark in found.remarks:
        typer.echo(remark)
    typer.echo(
        f"{found.questions} of {found.asked} questions about {found.videos} videos; loss in points; seconds and cache "
        "(keys and values) per question, without reading and encoding; best trade-off: no other setting is as good in "
        "loss, seconds and cache."
    )
    typer.echo(found.recommendation.sentence)


def _row(setting: "Setting") -> tuple[str, ...]:
    return (
        setting.run,
        _text(setting.accuracy, 100, 1, " %"),
        _text(setting.agreement, 100, 1, " %"),
        _text(setting.loss, 100, 1),
        _text(setting.seconds, 1, 3),
        _text(setting.cache_mb, 1, 2),
        "" if setting.peak_gpu_mb is None else f"{setting.peak_gpu_mb:.0f}",
        "yes" if setting.is_on_front else "",
    )


def _text(mean: "Mean | None", factor: int, digits: int, unit: str = "") -> str:
    """Format a mean with its interval."""
    if mean is None:
        return ""
    interval = "" if mean.interval is None else f" ± {factor * mean.interval:.{digits}f}"
    return f"{factor * mean.value:.{digits}f}{interval}{unit}"
