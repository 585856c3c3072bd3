"""A video of a native model on its way from the vision part to a prompt.

Letters: T frames of H x W tokens, N tokens after compression, P positions of a prompt, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stgridpool.adapters.adapter import EncodedVisual
from stgridpool.adapters.native_recipe import FRAMES, RECORD, SOURCE
from stgridpool.adapters.visual_runs import CompressedVisual
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.finite import StageCheck
from stgridpool.newlines import count_newlines, insert_newlines
from stgridpool.plan import Plan, Shape

_TOKENS, _LEVEL, _KEPT, _PATCHES = "tokens", "level.", "kept", "patches"


def is_record(name: str) -> bool:
    """Tell whether a tensor of that name describes the video to its processor."""
    return name.startswith(RECORD) or name in (FRAMES, SOURCE)


def as_tensors(visual: EncodedVisual) -> dict[str, Tensor]:
    """Return an encoded video, without its evidence, as tensors by name."""
    tensors = {_TOKENS: visual.tokens, _KEPT: visual.kept, _PATCHES: visual.patches}
    tensors |= {f"{_LEVEL}{number}": level for number, level in enumerate(visual.levels)}
    return {name: value for name, value in tensors.items() if value is not None}


def from_tensors(tensors: Mapping[str, Tensor]) -> EncodedVisual:
    """Return the video that `as_tensors` has taken apart."""
    count = sum(name.startswith(_LEVEL) for name in tensors)
    levels = tuple(tensors[f"{_LEVEL}{number}"] for number in range(count))
    return EncodedVisual(tensors[_TOKENS], levels, tensors.get(_KEPT), tensors.get(_PATCHES))


@dataclass(frozen=True, eq=False)
class NativeVideo:
    """A compressed video; for attributes that are not listed see `stgridpool.model.Video`.

    Attributes:
        compressed: The video's tokens.
        record: What the video processor needs to write prompts about it, see `NativeRecipe.inputs`.
        tail: (k, D), rows that follow the video, such as a newline token.
        checks: Whether the output of each stage is finite.
        placed: The positions of the tokens, counted from the first one; None before it is in a prompt.
    """

    compressed: CompressedVisual
    record: Mapping[str, Tensor]
    tail: Tensor
    checks: tuple[StageCheck, ...] = ()
    placed: VisualSpan | None = None

    @property
    def embeds(self) -> Tensor:
        """The visual tokens and their newline tokens, without the text between frames: (N + n, D)."""
        tokens = self.compressed.tokens
        if self.newline_position is None:
            return torch.cat([tokens.features, self.tail.to(tokens.features)])
        return insert_newlines(tokens, self.tail[0], self.newline_position)

    @property
    def newline_position(self) -> str | None:
        """Where the rows of the tail stand, see `Adapter.newline_position`."""
        return self.compressed.run.newlines

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens."""
        return len(self.compressed.tokens)

    @property
    def num_newlines(self) -> int:
        """Number of newline tokens."""
        return len(self.embeds) - self.num_tokens

    @property
    def own_counts(self) -> tuple[int, int]:
        """Number of tokens and of newline tokens without compression."""
        visual = self.compressed.run.visual
        shape = self.compressed.run.shape
        tokens = math.prod(shape) if visual.kept is None else len(visual.kept)
        position = self.newline_position
        return tokens, len(self.tail) if position is None else count_newlines(shape, position)

    @property
    def plan(self) -> Plan:
        """The plan of the steps before the language model."""
        return self.compressed.plan

    @property
    def source_shape(self) -> Shape:
        """(T, H, W) of the patches, or of the tokens of a model without its own pooling."""
        visual = self.compressed.run.visual
        frames, height, width = (visual.tokens if visual.patches is None else visual.patches).shape[:3]
        return frames, height, width

    @property
    def num_sources(self) -> int | None:
        """Number of tokens where the model itself drops some; None if they fill `source_shape`."""
        return None if self.compressed.run.visual.kept is None else self.own_counts[0]

    @property
    def shape(self) -> Shape:
        """(T', H', W') of the lattice of the visual tokens."""
        return self.compressed.tokens.shape

    @property
    def cell(self) -> Tensor | None:
        """The cell of each visual token, (N,) int64; None if they fill the lattice."""
        return self.compressed.tokens.cell

    def span(self, start: int) -> VisualSpan:
        """Return the positions of its tokens in a prompt where its first token stands at position `start`.

        Raises:
            ValueError: If it is not in a prompt: the text between its frames is not known.
        """
        if self.placed is None:
            raise ValueError("a video has positions in a prompt only: take it from Prompt.videos")
        return moved(self.placed, start)


def moved(span: VisualSpan, by: int) -> VisualSpan:
    """Return a span `by` positions further."""
    return replace(span, tokens=span.tokens + by, newlines=span.newlines + by)
