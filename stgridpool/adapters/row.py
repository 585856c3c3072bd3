"""Row: the order of the text and the visual tokens of one prompt after compression.

Every visual token goes to the run of placeholders in which its own placeholder stands, and the tokens of a run keep the
order that the method gave them. So time stamps between frames stay before their frames.

Letters: L positions of the padded prompt, n without padding, M after compression, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stgridpool.adapters.adapter import IMAGE
from stgridpool.adapters.visual_runs import CompressedVisual
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.newlines import token_positions


@dataclass(frozen=True, eq=False)
class Row:
    """The positions of a prompt after compression, without padding.

    Attributes:
        source: (M,) int64, the position among the L that each new position takes its text or its place from.
        token: (M,) int64, the visual token at each position, counted over all visuals of the prompt; -1 for text.
        visuals: The visuals of the prompt, in order.
    """

    source: Tensor
    token: Tensor
    visuals: Sequence[CompressedVisual]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_visual(self) -> Tensor:
        """(M,) bool, the positions of visual tokens."""
        return self.token >= 0

    def tokens(self) -> Tensor | None:
        """Return the visual tokens (v, D) in the order of their positions; None without visuals."""
        return self._ordered([visual.tokens.features for visual in self.visuals]) if self.visuals else None

    def level(self, number: int) -> Tensor:
        """Return a DeepStack level (v, D_i) of the visual tokens, at least one, in the order of their positions."""
        return self._ordered([visual.tokens.levels[number] for visual in self.visuals])

    def tail_places(self) -> Tensor:
        """Return the new positions (t,) of the rows that follow videos."""
        tails = [visual.run.tail for visual in self.visuals]
        none = self.source.new_zeros(0)
        wanted = torch.cat([none, *tails]).to(self.source.device)
        return torch.isin(self.source, wanted).logical_and(~self.is_visual).nonzero().flatten()

    def spans(self, images: bool = False) -> Iterator[VisualSpan]:
        """Yield the positions of each video, and of each image if asked for, for steps inside the language model."""
        place = torch.empty_like(self.token[self.is_visual])
        place[self.token[self.is_visual]] = self.is_visual.nonzero().flatten()
        counts = [len(visual.tokens) for visual in self.visuals]
        for visual, places in zip(self.visuals, place.split(counts), strict=True):
            if visual.run.kind == IMAGE and not images:
                continue
            is_tail = torch.isin(self.source, visual.run.tail.to(self.source.device)) & ~self.is_visual
            tokens = visual.tokens
            yield VisualSpan(
                places, tokens.shape, is_tail.nonzero().flatten(), tokens.cell, visual.evidence, tokens.before
            )

    def _ordered(self, features: Sequence[Tensor]) -> Tensor:
        rows = torch.cat(list(features))
        return rows[self.token[self.is_visual].to(rows.device)]


def row_of(real: Tensor, visuals: Sequence[CompressedVisual]) -> Row:
    """Order the text and the visual tokens of a prompt.

    Args:
        real: (L,) bool, the positions that are not padding.
        visuals: The visuals of the prompt, in order.
    """
    device = real.device
    is_text = real.clone()
    for visual in visuals:
        slots = visual.run.slots.to(device)
        is_text[slots[slots >= 0]] = False
    run = (is_text.cumsum(0) * 2 + is_text.logical_not()).to(device)  # equal within a run of placeholders, ascending
    text = is_text.nonzero().flatten()
    places = [visual.run.slots.to(device)[visual.place.to(device)] for visual in visuals]
    slots = torch.cat([text.new_zeros(0), *places])
    source = torch.cat([text, slots])
    token = torch.cat([text.new_full((len(text),), -1), torch.arange(len(slots), device=device)])
    # each text between runs has its own number, so a stable sort keeps text and the tokens of each run in order
    order = torch.cat([2 * is_text.cumsum(0)[text], run[slots]]).argsort(stable=True)
    row = Row(source[order], token[order], visuals)
    first = 0
    for visual in visuals:
        row = _with_newlines(row, visual, first)
        first += len(visual.tokens)
    return row


def _with_newlines(row: Row, visual: CompressedVisual, first: int) -> Row:
    """Put the newlines of a visual where its layout has them, instead of one after the visual.

    Args:
        row: The prompt with one newline, the only row of the tail, after the visual.
        visual: One of its visuals.
        first: Number of visual tokens before it.
    """
    position = visual.run.newlines
    if position in (None, "one_token"):
        return row
    begin = int((row.token == first).nonzero())
    end = begin + len(visual.tokens)
    index = token_positions(visual.tokens.places(), position).to(row.token.device)
    length = len(index) if position == "no_token" else int(index[-1]) + 2
    source = row.source[end : end + 1].expand(length).index_copy(0, index, row.source[begin:end])
    token = row.token.new_full((length,), -1).index_copy(0, index, row.token[begin:end])
    new_source, new_token = (
        torch.cat([values[:begin], middle, values[end + 1 :]])
        for values, middle in ((row.source, source), (row.token, token))
    )
    return Row(new_source, new_token, row.visuals)
