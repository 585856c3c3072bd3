"""Videos of a prompt, matched with their placeholders, and compressed one by one.

Letters: B prompts, L positions with padding, T frames of H x W tokens, N tokens after compression, D width.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from stgridpool.adapters.adapter import IMAGE, VIDEO, Adapter, Clips, EncodedVisual, Inputs
from stgridpool.adapters.tower_evidence import with_evidence
from stgridpool.compressor import PATCHES, Step, compress_steps
from stgridpool.evidence import Evidence, Need, through
from stgridpool.plan import Plan, Shape, to_device
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class VisualRun:
    """A video or image of a prompt, and the positions of its placeholders.

    Attributes:
        visual: The visual as the model's vision part encodes it.
        row: Its prompt in the batch.
        slots: (T * H * W,) int64, the position of each token among the L, -1 for those without a placeholder.
        tail: (k,) int64, the positions of the rows that follow it, see `Adapter.tail`.
        newlines: See `Adapter.newline_position`.
    """

    visual: EncodedVisual
    row: int
    slots: Tensor
    tail: Tensor
    newlines: str | None = None

    @property
    def kind(self) -> str:
        """Whether it is a "video" or an "image"."""
        return self.visual.kind

    @property
    def shape(self) -> Shape:
        """(T, H, W) of the tokens that the unmodified model would read."""
        frames, height, width = self.visual.tokens.shape[:3]
        return frames, height, width


@dataclass(frozen=True, eq=False)
class CompressedVisual:
    """A compressed video or image.

    Attributes:
        run: The visual before compression; after `without_sources` its tensors have no values.
        tokens: The tokens that the language model will read.
        plan: The sources of each of them, among the patches if `from_patches`, otherwise among the model's own tokens.
        place: (N,) int64, ascending within a run of placeholders, the cell of ``run.slots`` at which each token stands.
        evidence: Evidence about the tokens, for methods inside the language model.
        from_patches: Whether compression replaced the model's own pooling.
    """

    run: VisualRun
    tokens: VideoTokens
    plan: Plan
    place: Tensor
    evidence: Evidence = field(default_factory=dict)
    from_patches: bool = False

    def without_sources(self) -> CompressedVisual:
        """Return it without what it was made of: tokens and patches before compression keep only their shapes."""
        visual = self.run.visual
        patches = None if visual.patches is None else visual.patches.to("meta")
        visual = replace(visual, tokens=visual.tokens.to("meta"), levels=(), patches=patches, evidence={})
        return replace(self, run=replace(self.run, visual=visual))


def visual_runs(
    adapter: Adapter,
    model: Any,
    inputs: Inputs,
    needs: Collection[Need] = (),
    images: bool = False,
    clips: Clips | None = None,
    reuse_frames: bool = True,
) -> list[VisualRun]:
    """Encode the videos of prompts and match them with their placeholders.

    Args:
        adapter: The adapter for `model`.
        model: A native model of transformers.
        inputs: The output of its processor.
        needs: Evidence to gather from the vision part.
        images: Whether to encode images, too; otherwise they are left to the model.
        clips: See `stgridpool.adapters.adapter.Clips`.
        reuse_frames: Whether frames of videos that equal an earlier one are encoded once.

    Raises:
        ValueError: If a visual has another number of tokens than placeholders, or images are not supported.
    """
    runs: list[VisualRun] = []
    if inputs.get(adapter.video_inputs[0]) is not None:
        visuals = with_evidence(adapter, model, inputs, VIDEO, needs, clips, reuse_frames)
        runs += matched_runs(adapter, model, inputs, visuals, VIDEO)
    if images and any(inputs.get(name) is not None for name in adapter.image_inputs[:1]):
        visuals = [replace(one, kind=IMAGE) for one in with_evidence(adapter, model, inputs, IMAGE, needs)]
        runs += matched_runs(adapter, model, inputs, visuals, IMAGE)
    return runs


def matched_runs(
    adapter: Adapter, model: Any, inputs: Inputs, visuals: Sequence[EncodedVisual], kind: str
) -> list[VisualRun]:
    """Assign the placeholders of prompts, in order, to the visuals of one kind, which have been encoded.

    Args:
        adapter: The adapter for `model`.
        model: A native model of transformers.
        inputs: The output of its processor.
        visuals: The visuals, in the order of the prompts.
        kind: "video" or "image".

    Raises:
        ValueError: If a visual has another number of tokens than placeholders.
    """
    is_slot = adapter.slots(model, inputs, kind)
    rows, columns = is_slot.nonzero(as_tuple=True)
    tail = adapter.tail(model) if kind == VIDEO else None
    num_tail = 0 if tail is None else len(tail)
    newlines = adapter.newline_position(model) if kind == VIDEO else None
    counts = [_num_slots(visual) + num_tail for visual in visuals]
    if sum(counts) != len(rows):
        raise ValueError(
            f"the prompts have {len(rows)} placeholders for the tokens of each {kind}, but these have {counts} tokens; "
            "do not truncate prompts, and pass the whole output of one call of the processor"
        )
    runs = []
    for number, (visual, own_rows, own) in enumerate(
        zip(visuals, rows.split(counts), columns.split(counts), strict=True)
    ):
        if len(set(own_rows.tolist())) > 1 or (adapter.is_one_run and bool((own.diff() != 1).any())):
            raise ValueError(
                f"{kind} {number} has {counts[number]} tokens, which do not match its placeholders; other visuals of "
                "the batch make up the difference, so that their counts have been mixed up"
            )
        tokens, behind = own.split([len(own) - num_tail, num_tail])
        slots = tokens
        if visual.kept is not None:
            every = visual.tokens.shape[:3].numel()
            slots = tokens.new_full((every,), -1).index_copy(0, visual.kept.to(tokens.device), tokens)
        runs.append(VisualRun(visual, int(own_rows[0]), slots, behind, newlines))
    return runs


def _num_slots(visual: EncodedVisual) -> int:
    return visual.tokens.shape[:3].numel() if visual.kept is None else len(visual.kept)


def compress_run(
    adapter: Adapter, model: Any, run: VisualRun, steps: Sequence[Step], evidence: Evidence | None = None
) -> CompressedVisual:
    """Compress a visual by the steps before the language model.

    Args:
        adapter: The adapter for `model`.
        model: A native model of transformers.
        run: The visual.
        steps: Steps at the places "patches" and "tokens", in order; without any, the visual stays as it is.
        evidence: Evidence besides that from the vision part, such as the question.

    Raises:
        ValueError: See `Compressor.plan`.
    """
    given = {**run.visual.evidence, **(evidence or {})}
    patches = run.visual.patches
    if patches is not None and any(step.place == PATCHES for step in steps):
        tokens, plan, found = compress_steps(steps, VideoTokens.of(patches), to_device(given, patches.device))
        cells = _on_lattice(plan.anchor, (run.shape[0], *patches.shape[1:3]), run.shape)
        return CompressedVisual(run, tokens, plan, cells, found, from_patches=True)
    if patches is not None and given:
        pooling = adapter.own_pooling(model).plan(VideoTokens.of(patches), {})
        given = dict(through(to_device(given, patches.device), pooling))
    tokens = _own_tokens(run.visual)
    given = dict(to_device(given, tokens.features.device))
    if tokens.cell is not None:
        given = dict(through(given, Plan.keep(tokens.cell, math.prod(run.shape))))
    if not steps:
        plan = Plan.keep(torch.arange(len(tokens), device=tokens.features.device), len(tokens), _filled(tokens))
        return CompressedVisual(run, tokens, plan, tokens.cells(), given)
    cells = tokens.cells()
    tokens, plan, found = compress_steps(steps, tokens, given)
    return CompressedVisual(run, tokens, plan, cells[plan.anchor], found)


def _own_tokens(visual: EncodedVisual) -> VideoTokens:
    """Return the tokens that have placeholders."""
    whole = VideoTokens.of(visual.tokens)
    if visual.kept is None or len(visual.kept) == len(whole):
        return VideoTokens(whole.features, whole.shape, levels=visual.levels)
    kept = visual.kept.to(whole.features.device)
    return VideoTokens(whole.features[kept], whole.shape, kept, tuple(level[kept] for level in visual.levels))


def _filled(tokens: VideoTokens) -> Shape | None:
    return tokens.shape if tokens.cell is None else None


def _on_lattice(cells: Tensor, source: Shape, target: Shape) -> Tensor:
    """Return the cells of a lattice `target` in which cells of `source`, a lattice of as many frames, lie."""
    _, height, width = source
    frames, rows, columns = cells // (height * width), cells // width % height, cells % width
    rows, columns = rows * target[1] // height, columns * target[2] // width
    return (frames * target[1] + rows) * target[2] + columns
