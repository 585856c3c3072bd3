"""Prefill: inputs of the layers of a decoder during the forward that shortens prompts.

Each step begins a segment of layers, all of which get the same mask, positions and rotary tables. The hooks of
`DecoderSteps` call `enter` for each layer in order.

Letters: B prompts, L positions with padding, n real tokens of a prompt, M tokens that remain, D width, d width of the
rotary tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from stgridpool.compressor import Step
from stgridpool.decoder.attention_rows import attention_to, relevant_rows
from stgridpool.decoder.decoder import Decoder, Tables
from stgridpool.decoder.positions import counted, pad_left, placed
from stgridpool.decoder.shortened_prompt import VisualSpan, shorten
from stgridpool.evidence import QueryRows
from stgridpool.plan import Plan


class Prefill:
    """A forward that shortens prompts.

    Args:
        decoder: The decoder whose layers run.
        steps: Steps in the order of their layers.
        mask: (B, L), nonzero for real tokens, or None if all are real.
        spans: The videos of each prompt; if the batch has n times as many rows, each prompt has n consecutive rows.
        num_answer: Number of tokens at the end of each prompt that belong to an answer.

    Attributes:
        kept: For each step so far (B, M) bool, the real tokens after it.
        plans: The plans so far, ``plans[row][step][video]``.
        num_newlines: Newline tokens after each step so far, ``num_newlines[row][step]``.
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
        self._spans: list[Sequence[VisualSpan]] = []  # of each row, updated by every step
        self._real: list[Tensor] = []  # (n,) of each row, positions of its tokens among the L
        self._tables: Tables | None = None  # (B, L, d) each, of the current segment
        self._inputs: dict[str, Any] = {}
        self._relevant: list[Tensor | None] = []  # of each row, which tokens of its question are relevant
        self.kept: list[Tensor] = []
        self.plans: list[list[list[Plan]]] = []
        self.num_newlines: list[list[int]] = []

    def enter(
        self, index: int, hidden: Tensor, cache: Cache | None, kwargs: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return replacements for the hidden states (B, L, D) of a layer and for its other inputs.

        Args:
            index: The layer.
            hidden: Its hidden states.
            cache: The cache, or None.
            kwargs: Its other inputs.

        Raises:
            ValueError: If the forward does not contain whole prompts, layers are entered out of order, or a compressor
                refuses its tokens.
        """
        if self._tables is None:
            self._begin(hidden, self._decoder.tables(kwargs))
        acting = [step for step in self._steps if step.place == index]
        for step in acting:
            self._gather_attention(index, hidden, [step])
            hidden = self._shorten(hidden, step)
        later = [step for step in self._steps if isinstance(step.place, int) and step.place > index]
        self._gather_attention(index, hidden, later)
        if acting:
            kept = self.kept[-1]
            tables = self._tables_on(hidden)
            self._inputs = self._decoder.layer_inputs(index, hidden, kept, counted(kept), tables, cache)
        return hidden, self._inputs

    def _begin(self, hidden: Tensor, tables: Tables) -> None:
        batch, length, _ = hidden.shape
        mask = hidden.new_ones(batch, length) if self._mask is None else self._mask.to(hidden.device)
        if mask.shape[1] != length:
            raise ValueError("the first forward must contain the whole prompts, with an empty cache")
        if not self._announced or batch % len(self._announced):
            raise ValueError(f"the batch must hold {len(self._announced)} prompts or a multiple, got {batch} rows")
        times = batch // len(self._announced)
        self._spans = [row for row in self._announced for _ in range(times)]
        self._num_answer = [count for count in self._num_answer for _ in range(times)]
        self._real = [row.nonzero().flatten() for row in mask]
        self._tables = tables[0].expand(batch, -1, -1), tables[1].expand(batch, -1, -1)
        self.plans, self.num_newlines = [[] for _ in range(batch)], [[] for _ in range(batch)]
        self._relevant = [None] * batch
        needs = [need for step in self._steps for need in step.compressor.needs if isinstance(need, QueryRows)]
        asking = next((need for need in needs if need.rows == "relevant"), None)
        for row, places in enumerate(self._real if asking else ()):
            if self._spans[row]:
                end = len(places) - self._num_answer[row]
                self._relevant[row] = relevant_rows(hidden[row][places], self._spans[row], end, asking)

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

    def _gather_attention(self, index: int, hidden: Tensor, steps: Sequence[Step]) -> None:
        """Compute the attention in layer `index` that `steps` need, and add it to the evidence of the videos."""
        needs = {need for step in steps for need in step.compressor.needs}
        wanted = [need for need in needs if isinstance(need, QueryRows) and need.layer == index]
        if not wanted:
            return
        real = [places.to(hidden.device) for places in self._real]
        cosines, sines = self._tables_on(hidden)
        for row, places in enumerate(real):
            tables = cosines[row][places], sines[row][places]
            end = len(places) - self._num_answer[row]
            for need in wanted if self._spans[row] else ():
                states, spans, relevant = hidden[row][places], self._spans[row], self._relevant[row]
                received = attention_to(self._decoder, need, states, tables, spans, end, relevant)
                self._spans[row] = [
                    replace(span, evidence={**span.evidence, need: values})
                    for span, values in zip(self._spans[row], received, strict=True)
                ]

    def _tables_on(self, hidden: Tensor) -> Tables:
        if self._tables is None:
            raise ValueError("layers must be entered in order")
        cosines, sines = self._tables
        return cosines.to(hidden.device), sines.to(hidden.device)
