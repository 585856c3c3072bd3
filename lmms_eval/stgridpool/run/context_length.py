"""Whether the longest videos of a run fit into the checkpoint's context, and what would."""

import math
from dataclasses import dataclass

from lmms_eval_stgridpool.health.planned import Planned
from lmms_eval_stgridpool.health.planning import Planner
from stgridpool import Bilinear, Chain, Compressor
from stgridpool.budget import BudgetError
from stgridpool.compressor import PATCHES


@dataclass(frozen=True)
class TooLong:
    """The longest videos may not fit into the context.

    Attributes:
        text: By how much, and what would fit.
        is_certain: Whether the tokens of the video alone are too many; otherwise the text beside it decides.
    """

    text: str
    is_certain: bool


def too_long(planner: Planner, method: Compressor, name: str, frames: int) -> TooLong | None:
    """Tell whether a video may be too long for the checkpoint, and what would not be.

    Args:
        planner: Counts the tokens of the checkpoint, with the settings that the arguments of the run overwrite.
        method: The compressor.
        name: Its name among the arguments.
        frames: Maximum number of frames.

    Returns:
        None if the video fits with `text_tokens` of text, if the number of its tokens depends on the tokens, or if the
        compressor cannot meet its budget on a video of that many frames, which others may not have.

    Raises:
        ValueError: If the model is not deep enough for the compressor, or there are too few tokens for its options.
    """
    try:
        planned = planner.plan(method, frames)
    except BudgetError:
        return None
    if planned.fits is not False or planned.positions is None or planner.longest is None:
        return None
    video = planned.positions - planned.text_tokens
    left = planner.longest - video  # for text
    is_certain = left + (0 if planned.newlines_are_exact else planned.newlines) <= 0
    fails = "will fail" if is_certain else f"with more than {max(left, 0)} tokens of text may fail"
    return TooLong(
        f"{planned.frames} frames make a prompt of about {planned.positions} tokens ({planned.text_tokens} for text), "
        f"and the checkpoint takes prompts of {planner.longest}: questions about long videos {fails}; "
        f"use {_repairs(planner, method, name, planned)}",
        is_certain,
    )


def _repairs(planner: Planner, method: Compressor, name: str, planned: Planned) -> str:
    """Name what would fit: pooling after a method that does not pool, fewer frames, a longer context."""
    repairs = []
    keeps_all = planned.tokens is not None and planned.tokens >= planned.frames * math.prod(planner.reference.patches)
    if keeps_all and any(step.place == PATCHES for step in method.steps()):
        pooling = Bilinear()
        pooled = pooling if name == "none" else Chain((method, pooling))
        if planner.plan(pooled, planned.frames).fits:
            repairs.append("compressor=bilinear" if name == "none" else f"compressor={name}+bilinear")
    frames = planner.most_frames(method)
    if frames is not None:
        repairs.append(f"max_frames_num={frames}")
    return ", ".join([*repairs, f"a stronger method, or a longer context with max_length={planned.positions}"])
