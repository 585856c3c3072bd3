"""CompressedPrompt: a processor's output, rewritten with fewer visual tokens.

Letters: B prompts, L positions with padding before and M after compression, n visual tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.adapters.adapter import Adapter, Inputs
from stgridpool.adapters.names import POLICIES
from stgridpool.adapters.row import Row, row_of
from stgridpool.adapters.visual_runs import CompressedVisual
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import CompressedPrompts, DecoderSteps
from stgridpool.options import choice


@dataclass(frozen=True, eq=False)
class CompressedPrompt:
    """Prompts whose videos have been compressed.

    Attributes:
        inputs: What ``generate`` takes; the first forward must run inside `prefilling`.
        dense_ids: (B, L) ids of the unmodified prompts.
        visuals: The compressed visuals of each prompt, in order; what they were made of has been freed.
        spans: Where those stand in each prompt on which steps inside the language model act, padding not counted.
        visual_mask: (B, M) bool, the positions of visual tokens.
        levels: DeepStack levels of the visual tokens, (n, D_i) each, in the order of `visual_mask`.
        positions: Which positions the tokens have: "reference" or "hf" for the axes of M-RoPE, and "survive" where
            every token keeps the position that it had, or "reassign" where all are numbered again.
        next_position: (B,) int64, the position of the first token after each prompt.
        inside: The steps inside the language model, or None.
        reused_frames: Number of frames of videos that equal an earlier one of any prompt and were not encoded again;
            those that a processor adds to fill up a video count.
    """

    inputs: dict[str, Any]
    dense_ids: Tensor
    visuals: tuple[tuple[CompressedVisual, ...], ...]
    spans: tuple[tuple[VisualSpan, ...], ...]
    visual_mask: Tensor
    levels: tuple[Tensor, ...]
    positions: tuple[str, ...]
    next_position: Tensor
    inside: DecoderSteps | None = None
    reused_frames: int = 0

    @property
    def num_removed(self) -> int:
        """Number of positions, L - M, by which the padded prompts have become shorter; negative if longer."""
        return self.dense_ids.shape[1] - self.visual_mask.shape[1]

    @property
    def forward_inputs(self) -> dict[str, Any]:
        """What a forward takes: `inputs` without the ids, since a model takes ids or embeddings, not both."""
        return {name: value for name, value in self.inputs.items() if name != "input_ids"}

    @contextmanager
    def prefilling(self, adapter: Adapter, model: Any) -> Iterator[CompressedPrompts | None]:
        """Run the first forward of these prompts in the block, and further ones that continue them.

        Yields:
            The result of the steps inside the language model; None if there are none.
        """
        with ExitStack() as stack:
            stack.enter_context(adapter.prefilling(model, self))
            inside = None if self.inside is None else stack.enter_context(self.inside.prompts(self.spans))
            yield inside


def write_prompt(
    adapter: Adapter,
    model: Any,
    inputs: Inputs,
    visuals: Sequence[CompressedVisual],
    positions: str = "reference",
    inside: DecoderSteps | None = None,
    images: bool = False,
) -> CompressedPrompt:
    """Rewrite prompts around compressed visuals.

    Args:
        adapter: The adapter for `model`.
        model: A native model of transformers.
        inputs: The output of its processor.
        visuals: The visuals of all prompts, in order.
        positions: See `compress_inputs`.
        inside: The steps inside the language model, or None.
        images: Whether these act on images, too.
    """
    ids: Tensor = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    axes = adapter.positions(model, inputs, "hf" if positions == "hf" else "reference")
    named = _named(positions, axes is not None, visuals)
    by_row = [tuple(one for one in visuals if one.run.row == row) for row in range(len(ids))]
    batch = _Batch([row_of(real.bool(), own) for real, own in zip(mask, by_row, strict=True)])
    new_ids = batch.gather(ids, _pad_id(model))
    embeds, tail = model.get_input_embeddings()(new_ids), adapter.tail(model)
    embeds = torch.stack([_written(adapter, row, one, tail) for row, one in zip(batch.rows, embeds, strict=True)])
    placed = _positions(batch, mask, axes, named[0])
    is_used_up = any(visual.run.kind == "image" for visual in visuals)
    used_up = {*adapter.video_inputs, *adapter.position_inputs, *(adapter.image_inputs if is_used_up else ())}
    written = {name: value for name, value in inputs.items() if name not in used_up}
    written |= {"input_ids": new_ids, "attention_mask": batch.gather(mask), "inputs_embeds": embeds}
    written |= {"position_ids": placed}
    written |= {name: batch.gather(inputs[name]) for name in adapter.row_inputs if inputs.get(name) is not None}
    last = placed[..., -1] if placed.dim() == 2 else placed[1:, :, -1].amax(dim=0)
    spans = tuple(tuple(row.spans(images)) for row in batch.rows)
    reused = sum(len(visual.run.visual.reused) for visual in visuals) * adapter.frames_per_token(model)
    return CompressedPrompt(
        written, ids, tuple(by_row), spans, batch.is_visual(), batch.levels(), named, last + 1, inside, reused
    )


class _Batch:
    """The rows of a batch, padded on the left."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows, self.width = rows, max(map(len, rows))

    def gather(self, values: Tensor, pad: int = 0) -> Tensor:
        """Take the values (B, M) of positions from those (B, L) of the unmodified prompts."""
        return self.stack([one[row.source.to(one.device)] for row, one in zip(self.rows, values, strict=True)], pad)

    def stack(self, values: Sequence[Tensor], pad: int = 0) -> Tensor:
        """Stack the values (n,) of each row: (B, M)."""
        return torch.stack([F.pad(one, (self.width - len(one), 0), value=pad) for one in values])

    def is_visual(self) -> Tensor:
        """Return the positions (B, M) bool of visual tokens."""
        return self.stack([row.is_visual for row in self.rows])

    def levels(self) -> tuple[Tensor, ...]:
        """Return the DeepStack levels of the visual tokens, (n, D_i) each."""
        shown = [row for row in self.rows if row.visuals]
        count = len(shown[0].visuals[0].tokens.levels) if shown else 0
        return tuple(torch.cat([row.level(number) for row in shown]) for number in range(count))


def _named(positions: str, has_axes: bool, visuals: Sequence[CompressedVisual]) -> tuple[str, ...]:
    """Return what `CompressedPrompt.positions` records.

    Raises:
        ValueError: If `positions` is none of `POLICIES`, or tokens would need places that the unmodified prompt lacks.
    """
    choice("positions", positions, POLICIES)
    policy = positions if positions in ("survive", "reassign") else "survive" if has_axes else "reassign"
    if policy == "survive" and any(visual.run.newlines in ("grid", "frame") for visual in visuals):
        raise ValueError(
            "positions='survive' has no places for newlines after rows or frames, which the model's own prompt lacks: "
            "take positions='reference'"
        )
    return (policy, "hf" if positions == "hf" else "reference") if has_axes else (policy,)


def _written(adapter: Adapter, row: Row, embeds: Tensor, tail: Tensor | None) -> Tensor:
    """Put visual tokens, and the rows after videos, into the embeddings (M, D) of a prompt."""
    shift = len(embeds) - len(row)
    if len(places := row.tail_places()) and tail is not None:
        times = len(places) // len(tail)
        embeds = embeds.index_copy(0, places + shift, tail.repeat(times, 1).to(embeds))
    tokens = row.tokens()
    if tokens is None:
        return embeds
    places = row.is_visual.nonzero().flatten() + shift
    tokens = tokens.to(embeds)
    return embeds.index_copy(0, places, embeds[places] + tokens if adapter.adds else tokens)


def _positions(batch: _Batch, mask: Tensor, axes: Tensor | None, policy: str) -> Tensor:
    """Return positions (B, M), or (4, B, M) for M-RoPE, the first row of which counts the tokens without gaps."""
    counted = batch.stack([torch.arange(len(row), device=mask.device) for row in batch.rows])
    if policy == "reassign":
        return counted if axes is None else counted.expand(4, -1, -1)
    if axes is None:
        return batch.gather((mask.long().cumsum(dim=1) - 1).clamp_min(0))
    return torch.stack([counted, *(batch.gather(axis) for axis in axes)])


def _pad_id(model: Any) -> int:
    """Return the id that pads shorter prompts on the left; it is masked."""
    config = getattr(model, "generation_config", None)
    pad = getattr(config, "pad_token_id", None)
    return 0 if pad is None else int(pad)
