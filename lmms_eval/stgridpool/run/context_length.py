"""Whether the longest videos of a run fit into the checkpoint's context, and what would."""

import math
from collections.abc import Sequence
from dataclasses import replace

from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.health.planned import Planned
from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from stgridpool import Bilinear, Chain
from stgridpool.budget import BudgetError
from stgridpool.compressor import PATCHES


def length_warning(planner: Planner, arguments: LlavaArguments) -> str | None:
    """Warn if a video with all frames would be too long for the checkpoint, and say what would not be.

    Args:
        planner: Counts the tokens of the checkpoint, with the settings that `arguments` overwrite.
        arguments: The arguments of the run.

    Returns:
        The warning; None if the video fits, if the number of its tokens depends on the tokens, or if the compressor
        cannot meet its budget on a video of that many frames, which others may not have.

    Raises:
        ValueError: If the model is not deep enough for the compressor, or there are too few tokens for its options.
    """
    try:
        planned = planner.plan(arguments.build_compressor(), arguments.most_frames)
    except BudgetError:
        return None
    if planned.fits is not False:
        return None
    return (
        f"{planned.frames} frames make a prompt of about {planned.positions} tokens, and the checkpoint takes prompts "
        f"of {planner.longest}: questions about long videos will fail; use {_repairs(planner, arguments, planned)}"
    )


def length_warnings(planner: Planner, arguments: LlavaArguments, choices: Sequence[Choice]) -> list[str]:
    """Warn for each compressor of a sweep with which the longest videos do not fit.

    Args:
        planner: See `length_warning`.
        arguments: The arguments of the run; their compressor does not count.
        choices: The compressors.

    Raises:
        ValueError: See `length_warning`.
    """
    warnings = []
    for choice in choices:
        own = replace(arguments, compressor=choice.name, compressor_args=choice.options)
        if (warning := length_warning(planner, own)) is not None:
            warnings.append(f"{choice.folder}: {warning}")
    return warnings


def _repairs(planner: Planner, arguments: LlavaArguments, planned: Planned) -> str:
    """Name what would fit: pooling after a method that does not pool, fewer frames, a longer context."""
    method, repairs = arguments.build_compressor(), []
    keeps_all = planned.tokens is not None and planned.tokens >= planned.frames * math.prod(planner.reference.patches)
    if keeps_all and any(step.place == PATCHES for step in method.steps()):
        pooling = Bilinear()
        pooled = pooling if arguments.compressor == "none" else Chain((method, pooling))
        if planner.plan(pooled, planned.frames).fits:
            name = "bilinear" if arguments.compressor == "none" else f"{arguments.compressor}+bilinear"
            repairs.append(f"compressor={name}")
    frames = planner.most_frames(method)
    if frames is not None:
        repairs.append(f"max_frames_num={frames}")
    return ", ".join([*repairs, f"a stronger method, or a longer context with max_length={planned.positions}"])
