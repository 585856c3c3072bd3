"""``stgridpool plan``: how many tokens a method leaves of a video, and what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmms_eval_stgridpool.cli import paths
from lmms_eval_stgridpool.cli.loading import OWN_OPTIONS
from lmms_eval_stgridpool.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from lmms_eval_stgridpool.health.planned import Planned
    from lmms_eval_stgridpool.health.several_plans import Methods

VIDEO = typer.Argument(parser=paths.path, metavar="VIDEO", help="A video file, or a folder of pictures.")
CHECKPOINT = typer.Option(
    parser=paths.folder_or_name, metavar="FOLDER_OR_NAME", help="Its settings and headers are read, not its weights."
)
COMPRESSOR = typer.Option("--compressor", "-c", help='NAME or NAME:{"option":value}; may be repeated.')
FRAMES = typer.Option("--frames", help="Maximum number of frames (max_frames_num); may be repeated.")
RETENTION = typer.Option(help="Share of the checkpoint's own tokens to keep; may be repeated.")
RETENTION_OF = typer.Option(help="Definition of retention: entering_llm, layer_average, last_layer or kv_read.")
FIT = typer.Option(metavar="TOKENS", help="Also say how many frames fit into this many tokens, newlines included.")
FPS = typer.Option(help="Frames per second, see the model's argument fps.")
FORCE = typer.Option("--force_sample", "--force-sample", help="Sample that many frames from short videos, too.")
NEWLINES = typer.Option(
    "--mm_newline_position",
    "--mm-newline-position",
    help="grid, frame, one_token or no_token; default: the checkpoint's.",
)
MODEL_ARGS = typer.Option(
    "--model_args", "--model-args", help="Arguments of the model that change counts: KEY=VALUE,..."
)
COLUMNS = (
    *("method", "frames", "tokens", "newlines", "layer average", "last layer", "retention, %", "TFLOPs", "KV, MB"),
    "fits context",
)
CHANGE_COUNTS = (
    *("fps", "sampling", "force_sample", "mm_newline_position", "video_encoding", "max_length", "min_pixels"),
    "max_pixels",
)
"""Arguments of the models on which numbers of frames or tokens, or the context, depend."""


def plan(
    video: Annotated[Path, VIDEO],
    checkpoint: Annotated[str, CHECKPOINT],
    compressor: Annotated[list[str] | None, COMPRESSOR] = None,
    frames: Annotated[list[int] | None, FRAMES] = None,
    retention: Annotated[list[float] | None, RETENTION] = None,
    retention_of: Annotated[str, RETENTION_OF] = "entering_llm",
    fit: Annotated[int | None, FIT] = None,
    fps: Annotated[float | None, FPS] = None,
    force_sample: Annotated[bool, FORCE] = False,
    mm_newline_position: Annotated[str | None, NEWLINES] = None,
    model_args: Annotated[str, MODEL_ARGS] = "",
    as_json: AsJson = False,
) -> None:
    """Count frames and tokens, and estimate operations and cache of the prefill, without running a model.

    Tokens are counted by every definition of retention (--json shows all; kv_read is the layer average). A dash: the
    number depends on the video.
    """
    from lmms_eval_stgridpool.cli.quiet import quiet  # noqa: PLC0415

    quiet()
    from llava.video import VideoReadError  # noqa: PLC0415

    methods = _methods(compressor or ["st_gridpool"], retention or [], retention_of)
    _check_numbers(frames or [], fit)
    options = {"fps": fps, "force_sample": force_sample or None, "mm_newline_position": mm_newline_position}
    try:
        found = _found(video, _arguments(checkpoint, model_args, options), methods, frames or [], fit)
    except VideoReadError as error:
        raise ValueError(str(error)) from error
    if not found["plans"]:
        raise ValueError(f"no method could be planned: {'; '.join(found['remarks'])}")
    if as_json:
        shown = [{"name": name} | vars(planned) for name, planned in found["plans"]]
        print_json({"video": video, "checkpoint": checkpoint, "retention_of": retention_of, **found, "plans": shown})
    else:
        _show(found, retention_of)


def _show(found: Mapping[str, Any], retention_of: str) -> None:
    """Print the table, and what stands below it."""
    print_table(COLUMNS, (_row(name, planned, retention_of) for name, planned in found["plans"]))
    for line in _explain([planned for _, planned in found["plans"]]):
        typer.echo(line)
    tokens, fitting = found["fit_tokens"], found["frames_that_fit"]
    fits = (f"{count} frames fit into {tokens} tokens with {name}" for name, count in fitting.items())
    for remark in (*fits, *found["remarks"]):
        typer.echo(remark)


def _found(
    video: Path, arguments: Mapping[str, Any], methods: "Methods", frames: list[int], fit: int | None
) -> dict[str, Any]:
    """Plan methods, and return the model that runs the checkpoint, plans, frames that fit and remarks.

    Raises:
        ValueError: If the checkpoint or an argument cannot work.
        VideoReadError: If the video cannot be read.
    """
    from lmms_eval_stgridpool.health.planners import counting  # noqa: PLC0415
    from lmms_eval_stgridpool.health.several_plans import fit_all, plan_all  # noqa: PLC0415

    found = counting(video, arguments, frames)
    plans, remarks = plan_all(found.planner, methods, found.counts)
    fitting, too_large = fit_all(found.planner, methods, max(found.counts), fit)
    return {
        "model": found.model,
        "plans": plans,
        "fit_tokens": fit,
        "frames_that_fit": fitting,
        "remarks": [*remarks, *too_large],
    }


def _check_numbers(frames: list[int], fit: int | None) -> None:
    """Check numbers of frames and tokens.

    Raises:
        ValueError: If one is out of range.
    """
    from stgridpool.options import whole_number  # noqa: PLC0415

    for count in frames:
        whole_number("--frames", count, 1, 100_000)
    if fit is not None:
        whole_number("--fit", fit, 1, 10**9)


def _methods(compressors: list[str], retention: list[float], retention_of: str) -> "Methods":
    """Read the methods of the command line.

    Raises:
        ValueError: If an option is not as it must be.
    """
    from lmms_eval_stgridpool.comparison.choice import Choice  # noqa: PLC0415
    from lmms_eval_stgridpool.health.several_plans import Methods  # noqa: PLC0415
    from stgridpool.options import choice, fraction  # noqa: PLC0415
    from stgridpool.retention import DEFINITIONS  # noqa: PLC0415

    choice("--retention-of", retention_of, DEFINITIONS)
    for share in retention:
        fraction("--retention", share)
    choices = {one.folder: one for one in map(Choice.parse, compressors)}
    return Methods(tuple(choices.values()), tuple(retention), retention_of)


def _arguments(checkpoint: str, model_args: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the model.

    Raises:
        ValueError: If one is given twice, or would have no effect.
    """
    from lmms_eval_stgridpool.run.model_args import parse_model_args  # noqa: PLC0415

    given = parse_model_args(model_args, options)
    for name in given:
        if name in OWN_OPTIONS:
            raise ValueError(f"{name} in --model_args would be ignored: use {OWN_OPTIONS[name]}")
        if name not in CHANGE_COUNTS:
            raise ValueError(
                f"{name} in --model_args changes no count: leave it out; those that do are {', '.join(CHANGE_COUNTS)}"
            )
    return {"pretrained": checkpoint, **given}


def _explain(plans: Sequence["Planned"]) -> Iterator[str]:
    """Return what stands below the table."""
    own = {planned.frames: planned.own_tokens for planned in plans}
    counts = ", ".join(f"{count} of {frames} frames" for frames, count in own.items())
    yield f"tokens enter the language model; without a method the checkpoint reads {counts}, newlines apart"
    text = " or ".join(dict.fromkeys(str(planned.text_tokens) for planned in plans))
    yield f"TFLOPs and KV cache (16 bits) are estimates for the prefill, with {text} tokens of text"
    if plans[0].longest is not None:
        yield f"the checkpoint's context is {plans[0].longest} tokens"


def _row(name: str, planned: "Planned", of: str) -> tuple[str, ...]:
    newlines = f"{'' if planned.newlines_are_exact else 'at most '}{planned.newlines}"
    fits = {True: "yes", False: "no", None: "-"}[planned.fits]
    counts = (planned.tokens, planned.kept["layer_average"], planned.kept["last_layer"])
    tokens, average, last = ("-" if count is None else str(count) for count in counts)
    share = planned.retention[of]
    retention = "-" if share is None else f"{100 * share:.1f}"
    costs = ("-" if cost is None else f"{cost:.4g}" for cost in (planned.tflops, planned.kv_megabytes))
    return name, str(planned.frames), tokens, newlines, average, last, retention, *costs, fits
