"""Continuation: inputs of the layers of a decoder during a forward of tokens that follow shortened prompts.

Letters: B prompts, M positions of a shortened prompt, n new positions, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from stgridpool.compressor import Step
from stgridpool.decoder.decoder import Decoder, Tables
from stgridpool.decoder.positions import counted


class Continuation:
    """A forward of tokens that follow shortened prompts.

    Args:
        decoder: The decoder whose layers run.
        steps: Steps in the order of their layers.
        mask: (B, all positions so far), nonzero for real tokens, or None if all are real.
        kept: For each step (B, M) bool, the real tokens of the prompts after it; if B is smaller than the batch, each
            row is repeated.
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
        """Return the hidden states (B, n, D) unchanged, and replacements for the other inputs of a layer.

        Args:
            index: The layer.
            hidden: Its hidden states.
            cache: The cache.
            kwargs: Its other inputs.

        Raises:
            ValueError: If there is no cache.
        """
        acting = [number for number, step in enumerate(self._steps) if step.place == index]
        if not acting:
            return hidden, self._inputs
        if cache is None:
            raise ValueError("tokens after a shortened prompt need its cache, got none; pass use_cache=True")
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
        """Return the mask (B, M + added) of real positions in the segment of layers after a step."""
        batch, kept = len(hidden), self._kept[number]
        kept = kept.repeat_interleave(batch // len(kept), dim=0).to(hidden.device)
        behind = kept.new_ones(batch, added) if self._mask is None else self._mask[:, -added:].bool()
        return torch.cat([kept, behind.to(kept.device)], dim=1)
