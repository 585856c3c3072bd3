"""``stgridpool plan``: how many tokens a method leaves of a video, and what they cost."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmms_eval_stgridpool.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from lmms_eval_stgridpool.health.planned import Planned

VIDEO = typer.Argument(help="A video file.")
CHECKPOINT = typer.Option(metavar="FOLDER_OR_NAME", help="Its settings and headers are read, not its weights.")
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
COLUMNS = ("method", "frames", "tokens", "newlines", "layer average", "last layer", "TFLOPs", "KV MB", "fits context")


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
    as_json: AsJson = False,
) -> None:
    """Count frames and tokens, and estimate operations and cache of the prefill, without running a model.

    Tokens are counted by every definition of retention (--json shows all). A dash: the number depends on the video.
    """
    from llava.video import VideoReadError, sampled_indices  # noqa: PLC0415
    from lmms_eval_stgridpool.comparison.choice import Choice, at_retentions  # noqa: PLC0415
    from lmms_eval_stgridpool.health.planned import TEXT_TOKENS  # noqa: PLC0415
    from lmms_eval_stgridpool.health.planning import Planner  # noqa: PLC0415
    from lmms_eval_stgridpool.health.several_plans import fit_all, plan_all  # noqa: PLC0415
    from stgridpool.options import choice  # noqa: PLC0415
    from stgridpool.retention import DEFINITIONS  # noqa: PLC0415

    choice("--retention-of", retention_of, DEFINITIONS)
    overwrites = {} if mm_newline_position is None else {"mm_newline_position": mm_newline_position}
    planner = Planner.of(checkpoint, overwrites)
    choices = [Choice.parse(text) for text in compressor or ["st_gridpool"]]
    try:
        counts = list(dict.fromkeys(len(sampled_indices(video, most, fps, force_sample)) for most in frames or [64]))
    except VideoReadError as error:
        raise ValueError(str(error)) from error
    remarks: list[str] = []
    if retention:
        choices, remarks = at_retentions(choices, retention, retention_of, planner.reference, max(counts))
    found, refused = plan_all(planner, choices, counts)
    fitting, too_large = fit_all(planner, choices, fit)
    remarks += [*refused, *too_large]
    if not found:
        raise ValueError(f"no method could be planned: {'; '.join(remarks)}")
    if as_json:
        plans = [{"name": name} | asdict(planned) for name, planned in found]
        print_json({"plans": plans, "frames_that_fit": fitting, "text_tokens": TEXT_TOKENS, "remarks": remarks})
        return
    print_table(COLUMNS, (_row(name, planned) for name, planned in found))
    own = ", ".join(f"{planner.reference.own_count(count)} of {count} frames" for count in counts)
    fits = (f"{count} frames fit into {fit} tokens with {name}" for name, count in fitting.items())
    _explain(own, TEXT_TOKENS, [*fits, *remarks])


def _explain(own: str, text_tokens: int, remarks: list[str]) -> None:
    """Print what stands below the table."""
    typer.echo(f"tokens enter the language model; the checkpoint's own pooling leaves {own}, without newlines")
    typer.echo(f"TFLOPs and KV cache (16 bits) are estimates for the prefill, with {text_tokens} tokens of text")
    for remark in remarks:
        typer.echo(remark)


def _row(name: str, planned: "Planned") -> tuple[str, ...]:
    newlines = f"{'' if planned.newlines_are_exact else 'at most '}{planned.newlines}"
    fits = {True: "yes", False: "no", None: "-"}[planned.fits]
    counts = (planned.tokens, planned.kept["layer_average"], planned.kept["last_layer"])
    tokens, average, last = ("-" if count is None else str(count) for count in counts)
    costs = ("-" if cost is None else f"{cost:.4g}" for cost in (planned.tflops, planned.kv_megabytes))
    return name, str(planned.frames), tokens, newlines, average, last, *costs, fits
