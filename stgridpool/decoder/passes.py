"""What the layers of a decoder get during one forward: Prefill shortens prompts, Continuation goes on behind them.

Each step begins a segment of layers, all of which get the same mask, positions and rotary tables. The hooks of
`DecoderSteps` call `enter` for one layer after the other.

Letters: B prompts, L positions with padding, n real tokens of a prompt, M tokens that remain, D width, d width of the
rotary tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache

from stgridpool.compressor import Step
from stgridpool.decoder.attention_rows import attention_received
from stgridpool.decoder.decoder import Decoder, Tables
from stgridpool.decoder.shortened_prompt import ShortenedPrompt, VisualSpan, shorten
from stgridpool.evidence import QueryAttention
from stgridpool.plan import Plan


class Prefill:
    """The forward in which prompts are shortened.

    Args:
        decoder: The layers.
        steps: In the order of their layers.
        mask: (B, L), the positions that are real, or None for all.
        spans: The videos of each prompt; a batch of n times as many rows repeats each n times.
        num_answer: Tokens at the end of each prompt that belong to an answer.

    Attributes:
        kept: Of each step so far (B, M) bool.
        plans: ``plans[row][step][video]``.
        num_newlines: ``num_newlines[row][step]``.
    """

    def __init__(
        self,
        decoder: Decoder,
        steps: Sequence[Step],
        mask: Tensor | None,
        spans: Sequence[Sequence[VisualSpan]],
        num_answer: Sequence[int],
    ) -> None:
        self._decoder, self._steps, self._mask = decoder, steps, mask
        self._announced, self._num_answer = spans, list(num_answer)
        self._spans: list[Sequence[VisualSpan]] = []  # of each row, renewed by every step
        self._real: list[Tensor] = []  # (n,) of each row: where its tokens stand among the L
        self._tables: Tables | None = None  # (B, L, d) each, of the current segment
        self._inputs: dict[str, Any] = {}
        self.kept: list[Tensor] = []
        self.plans: list[list[list[Plan]]] = []
        self.num_newlines: list[list[int]] = []

    def enter(
        self, index: int, hidden: Tensor, cache: Cache | None, kwargs: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return what a layer gets in place of its hidden states (B, L, D), and of its other inputs.

        Args:
            index: The layer.
            hidden: What would enter it.
            cache: The cache, if there is one.
            kwargs: The layer's other inputs.

        Raises:
            ValueError: If the forward does not hold the whole prompts, or a compressor refuses what it gets.
        """
        if self._tables is None:
            self._begin(hidden, self._decoder.tables(kwargs))
        acting = [step for step in self._steps if step.place == index]
        for step in acting:
            self._look(index, hidden, [step])
            hidden = self._shorten(hidden, step)
        self._look(index, hidden, [step for step in self._steps if isinstance(step.place, int) and step.place > index])
        if acting:
            kept = self.kept[-1]
            tables = self._tables_on(hidden)
            self._inputs = self._decoder.layer_inputs(index, hidden, kept, counted(kept), tables, cache)
        return hidden, self._inputs

    def _begin(self, hidden: Tensor, tables: Tables) -> None:
        batch, length, _ = hidden.shape
        mask = hidden.new_ones(batch, length) if self._mask is None else self._mask.to(hidden.device)
        if mask.shape[1] != length:
            raise ValueError("the first forward must hold the whole prompts, from an empty cache")
        if not self._announced or batch % len(self._announced):
            raise ValueError(f"videos of {len(self._announced)} prompts were announced, and the batch has {batch} rows")
        times = batch // len(self._announced)
        self._spans = [row for row in self._announced for _ in range(times)]
        self._num_answer = [count for count in self._num_answer for _ in range(times)]
        self._real = [row.nonzero().flatten() for row in mask]
        self._tables = tables[0].expand(batch, -1, -1), tables[1].expand(batch, -1, -1)
        self.plans, self.num_newlines = [[] for _ in range(batch)], [[] for _ in range(batch)]

    def _shorten(self, hidden: Tensor, step: Step) -> Tensor:
        """Shorten the prompts (B, L, D) to (B, M, D); shorter ones are padded on the left."""
        real = [places.to(hidden.device) for places in self._real]
        rows = [
            shorten(states[places], spans, step.compressor)
            for states, places, spans in zip(hidden, real, self._spans, strict=True)
        ]
        shortened = pad_left([row.tokens for row in rows])  # (B, M, D)
        kept = pad_left([torch.ones_like(row.index, dtype=torch.bool) for row in rows])  # (B, M)
        if step.positions == "reassign":
            self._tables = self._decoder.rotary(shortened, counted(kept))
        else:
            cosines, sines = self._tables_on(hidden)
            self._tables = placed(step, rows, cosines, real), placed(step, rows, sines, real)
        for row, plans, num_newlines in zip(rows, self.plans, self.num_newlines, strict=True):
            plans.append(row.plans)
            num_newlines.append(row.num_newlines)
        self.kept.append(kept)
        self._spans = [row.remaining for row in rows]
        length = shortened.shape[1]
        self._real = [torch.arange(length - len(row.index), length, device=hidden.device) for row in rows]
        return shortened

    def _look(self, index: int, hidden: Tensor, steps: Sequence[Step]) -> None:
        """Note the attention of a layer that steps ask for with the videos that it is about."""
        needs = {need for step in steps for need in step.compressor.needs}
        wanted = [need for need in needs if isinstance(need, QueryAttention) and need.layer == index]
        if not wanted:
            return
        real = [places.to(hidden.device) for places in self._real]
        cosines, sines = self._tables_on(hidden)
        for row, places in enumerate(real):
            tables = cosines[row][places], sines[row][places]
            end = len(places) - self._num_answer[row]
            for need in wanted if self._spans[row] else ():
                received = attention_to(self._decoder, need, hidden[row][places], tables, self._spans[row], end)
                self._spans[row] = [
                    replace(span, evidence={**span.evidence, need: values})
                    for span, values in zip(self._spans[row], received, strict=True)
                ]

    def _tables_on(self, hidden: Tensor) -> Tables:
        if self._tables is None:
            raise ValueError("layers must be entered in order")
        cosines, sines = self._tables
        return cosines.to(hidden.device), sines.to(hidden.device)


class Continuation:
    """A forward of tokens that follow shortened prompts.

    Args:
        decoder: The layers.
        steps: In the order of their layers.
        mask: (B, all positions so far), those that are real, or None for all.
        kept: Of each step (B, M) bool, the real tokens of the prompts behind it; fewer rows are repeated.
        is_prompt: Whether the tokens still belong to the prompts.
    """

    def __init__(
        self, decoder: Decoder, steps: Sequence[Step], mask: Tensor | None, kept: Sequence[Tensor], is_prompt: bool
    ) -> None:
        self._decoder, self._steps, self._mask, self._kept = decoder, steps, mask, kept
        self._is_prompt = is_prompt
        self._tables: Tables | None = None  # of the current segment
        self._inputs: dict[str, Any] = {}

    def enter(
        self, index: int, hidden: Tensor, cache: Cache | None, kwargs: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the hidden states (B, n, D) as they are, and what a layer gets in place of its other inputs.

        Args:
            index: The layer.
            hidden: What enters it.
            cache: The cache.
            kwargs: The layer's other inputs.

        Raises:
            ValueError: If there is no cache.
        """
        acting = [number for number, step in enumerate(self._steps) if step.place == index]
        if not acting:
            return hidden, self._inputs
        if cache is None:
            raise ValueError("tokens after a shortened prompt need its cache")
        new = hidden.shape[1]
        added = cache.get_query_offset(index) + new - self._kept[acting[-1]].shape[1]
        tables = self._decoder.tables(kwargs) if self._tables is None else self._tables
        for number in acting:
            step, mask = self._steps[number], self._mask_of(number, hidden, added)
            order = counted(mask)[:, -new:]
            if step.positions == "reassign" and (self._is_prompt or not step.decode_gap):
                tables = self._decoder.rotary(hidden, order)
        self._tables = tables
        self._inputs = self._decoder.layer_inputs(index, hidden, mask, order, tables, cache)
        return hidden, self._inputs

    def _mask_of(self, number: int, hidden: Tensor, added: int) -> Tensor:
        """Return the real positions (B, M + added) of a segment."""
        batch, kept = len(hidden), self._kept[number]
        kept = kept.repeat_interleave(batch // len(kept), dim=0).to(hidden.device)
        behind = kept.new_ones(batch, added) if self._mask is None else self._mask[:, -added:].bool()
        return torch.cat([kept, behind.to(kept.device)], dim=1)


def attention_to(
    decoder: Decoder, need: QueryAttention, hidden: Tensor, tables: Tables, spans: Sequence[VisualSpan], end: int
) -> list[Tensor]:
    """Return the attention (N,) float32 that each video of a prompt receives in a layer.

    Args:
        decoder: The layers.
        need: What is wanted.
        hidden: (n, D), what enters the layer, without padding.
        tables: Rotary tables (n, d) of the prompt.
        spans: Its videos.
        end: Position at which the question ends.

    Raises:
        ValueError: If the text behind the last video is asked for, and there is none.
    """
    start = end - 1
    if need.rows == "question":
        start = 1 + max(int(torch.cat([span.tokens, span.newlines]).max()) for span in spans)
    if start >= end:
        raise ValueError(f"{need!r} needs text behind the last video, got a prompt that ends with it")
    rows = torch.arange(start, end, device=hidden.device)
    queries = decoder.queries(need.layer, hidden[rows], (tables[0][rows], tables[1][rows]))
    keys = decoder.keys(need.layer, hidden, tables)
    columns = torch.cat([span.tokens for span in spans]).to(keys.device)
    received = attention_received(
        queries, keys, rows.to(keys.device), columns, decoder.scaling(need.layer), need.reduce
    )
    return list(received.split([len(span.tokens) for span in spans]))


def placed(step: Step, rows: Sequence[ShortenedPrompt], table: Tensor, real: Sequence[Tensor]) -> Tensor:
    """Return what remains of a rotary table where positions are not counted again.

    Args:
        step: Its policy of positions is "survive" or "merge".
        rows: The prompts, shortened.
        table: (B, L, d), of whole padded prompts.
        real: Where the tokens of each prompt stand among the L.

    Returns:
        (B, M, d), padded on the left.
    """
    tables = [row[places] for row, places in zip(table, real, strict=True)]
    if step.positions == "merge":
        return pad_left([p.merge(one, step.merges_evenly) for p, one in zip(rows, tables, strict=True)])
    return pad_left([prompt.select(one) for prompt, one in zip(rows, tables, strict=True)])


def counted(mask: Tensor) -> Tensor:
    """Return positions (B, n) of real tokens, counted from 0; 0 on padding before them."""
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0)


def pad_left(rows: Sequence[Tensor]) -> Tensor:
    """Stack rows (n_i, ...), shorter ones with zeros before them."""
    longest = max(map(len, rows))
    return torch.stack([F.pad(row, (0, 0) * (row.dim() - 1) + (longest - len(row), 0)) for row in rows])
