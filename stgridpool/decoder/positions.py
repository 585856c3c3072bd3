"""Positions of the tokens in shortened prompts: numbered again, or those that they had.

Letters: B prompts, L positions with padding, M of a shortened prompt, d width of the rotary tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.compressor import Step
from stgridpool.decoder.shortened_prompt import ShortenedPrompt


def placed(step: Step, rows: Sequence[ShortenedPrompt], table: Tensor, real: Sequence[Tensor]) -> Tensor:
    """Shorten a rotary table for a step that does not number positions again.

    Args:
        step: A step whose `positions` are "survive" or "merge".
        rows: The shortened prompts.
        table: (B, L, d), for whole padded prompts.
        real: Positions of the tokens of each prompt among the L.

    Returns:
        (B, M, d), padded on the left.
    """
    tables = [row[places] for row, places in zip(table, real, strict=True)]
    if step.positions == "merge":
        return pad_left([p.merge(one, step.merges_evenly) for p, one in zip(rows, tables, strict=True)])
    return pad_left([prompt.select(one) for prompt, one in zip(rows, tables, strict=True)])


def counted(mask: Tensor) -> Tensor:
    """Return the positions (B, n) of real tokens, numbered from 0; padding before them has position 0."""
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0)


def pad_left(rows: Sequence[Tensor]) -> Tensor:
    """Stack rows (n_i, ...), and pad shorter ones with zeros on the left."""
    longest = max(map(len, rows))
    return torch.stack([F.pad(row, (0, 0) * (row.dim() - 1) + (longest - len(row), 0)) for row in rows])
