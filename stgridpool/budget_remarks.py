"""Remarks on budgets that a method does not leave exactly: named above what reaches it, or missed by a preset."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stgridpool.all_frames import AllFrames
from stgridpool.chain import Chain
from stgridpool.compressor import PATCHES, Compressor, Step, planned_counts
from stgridpool.equal_budget import Reference
from stgridpool.layer_average import OverLayers
from stgridpool.other_method import budgeted
from stgridpool.plan import Shape
from stgridpool.scorer import BUDGETS


def budget_remarks(compressor: Compressor, num_frames: int, reference: Reference) -> list[str]:
    """Say which steps of a method keep all that reaches them, below their budget, and which presets may miss one.

    Args:
        compressor: The method, its options for the depth of the model settled.
        num_frames: T, at least 1.
        reference: The checkpoint.

    Returns:
        One sentence for each such step, in order, and then for each method of many layers. Where an earlier step lets
        the video decide how many tokens it leaves, a run alone can say whether a budget is larger.
    """
    steps = compressor.steps()
    early = sum(step.is_before_features for step in steps)
    own = () if any(step.place == PATCHES for step in steps) else reference.own_pooling.steps()
    every = (*steps[:early], *own, *steps[early:])
    source = (num_frames, *reference.patches)
    found: list[str] = []
    shape: Shape = source
    before: int | None = math.prod(source)
    for step, after in zip(every, planned_counts(every, source), strict=True):
        found += _remarks(step, shape, before)
        planned = step.compressor.planned_shape(shape) if before == math.prod(shape) else None
        shape, before = planned or shape, after
    methods = compressor.methods if isinstance(compressor, Chain) else (compressor,)
    released = (one for one in methods if isinstance(one, OverLayers) and one.preset == "released")
    return [*found, *map(_remark_on_depth, released)]


def _remark_on_depth(method: OverLayers) -> str:
    """Say why a released preset may miss its mean over layers."""
    assumed = "" if method.depth == method.reckoned_depth else f"assumes {method.reckoned_depth} layers and "
    return (
        f"preset='released' of {type(method).__name__} may miss its budget, layer_average={method.layer_average}: it "
        f"{assumed}{method.released_miss}, as its code does"
    )


def _remarks(step: Step, shape: Shape, before: int | None) -> Iterator[str]:
    """Yield the remark on one step, which gets `before` tokens of a lattice; none where its options set no budget."""
    method = step.compressor.method if isinstance(step.compressor, AllFrames) else step.compressor
    inner = budgeted(method)
    if inner is None:
        return
    name, preset = type(method).__name__, getattr(inner, "preset", None)
    for option in BUDGETS:
        value = getattr(inner, option)
        if value is None:
            continue
        if before is not None and (inner.budget.named(shape) or 0) > before:
            yield f"{name} keeps all {before} tokens that reach it: its budget, {option}={value}, is larger"
        elif method.planned_count(shape) is None:
            which = f"preset={preset!r} of {name}" if preset else name
            yield f"{which} may miss its budget, {option}={value}: the video decides how many tokens it leaves"
