"""Shortening of a prompt with videos: a compressor reduces the tokens of each video, text stays unchanged.

Letters: n tokens of the prompt, M remaining tokens, T frames of H x W tokens, N tokens of a video, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stgridpool.compressor import Compressor, compress_tokens
from stgridpool.evidence import Evidence, through
from stgridpool.plan import Plan, Shape, to_device
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class VisualSpan:
    """The positions of a video in a prompt, counted from 0 over the prompt's real tokens, without padding.

    Attributes:
        tokens: (N,) int64, the position of each visual token, in the order in which compressors see them.
        shape: (T, H, W) of their lattice.
        newlines: (n,) int64, ascending, the positions of the video's newline tokens.
        cell: (N,) int64, the cell of each token, or None if they fill the lattice.
        evidence: Evidence about the tokens, from the vision tower and from layers of the language model that have run.
        before: Number of visual tokens before each earlier step, first step first.
    """

    tokens: Tensor
    shape: Shape
    newlines: Tensor
    cell: Tensor | None = None
    evidence: Evidence = field(default_factory=dict)
    before: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class ShortenedPrompt:
    """A prompt after a step.

    Attributes:
        tokens: (M, D), the remaining tokens.
        index: (M,) int64, ascending, the positions of the remaining tokens in the whole prompt. A merged token has the
            position of its anchor in the plan.
        spans: The videos in the whole prompt.
        targets: For each video (N,) int64, the positions of its remaining tokens in the whole prompt.
        plans: The compressor's plan for each video.
        remaining: The videos among the M remaining tokens.
    """

    tokens: Tensor
    index: Tensor
    spans: Sequence[VisualSpan]
    targets: list[Tensor]
    plans: list[Plan]
    remaining: list[VisualSpan]

    @property
    def num_newlines(self) -> int:
        """Number of remaining newline tokens."""
        return sum(len(span.newlines) for span in self.remaining)

    def select(self, table: Tensor) -> Tensor:
        """Select the rows of a table (n, d) for the remaining tokens: (M, d)."""
        return table[self.index]

    def merge(self, table: Tensor, evenly: bool = False) -> Tensor:
        """Apply the plans to the rows of a table (n, d), as they were applied to the tokens: (M, d).

        Args:
            table: One row per token of the prompt.
            evenly: Whether all tokens that are merged into one have the same weight, instead of the plan's weights.

        Raises:
            ValueError: If a plan does not reproduce values.
        """
        for span, targets, plan in zip(self.spans, self.targets, self.plans, strict=True):
            weights = _even(plan) if evenly else plan
            table = table.index_copy(0, targets, weights.apply(table[span.tokens]))
        return table[self.index]


def shorten(tokens: Tensor, spans: Sequence[VisualSpan], compressor: Compressor) -> ShortenedPrompt:
    """Compress the videos of a prompt.

    A newline token is removed when no token of its row or frame remains.

    Args:
        tokens: (n, D), the whole prompt; it is not changed.
        spans: Its videos, in order.
        compressor: The method.

    Raises:
        ValueError: If a video ends beyond the prompt, evidence is missing, or two tokens get the same place; see also
            `Compressor.plan`.
    """
    spans = [to_device(span, tokens.device) for span in spans]
    _check(spans, len(tokens))
    keep = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    plans, all_targets, remaining = [], [], []
    for span in spans:
        before = VideoTokens(tokens[span.tokens], span.shape, span.cell, before=span.before)
        after, plan = compress_tokens(compressor, before, span.evidence)
        targets = span.tokens[plan.anchor.to(span.tokens.device)]  # (N,)
        survives = torch.zeros_like(keep).index_fill(0, targets, True)
        newlines = _newlines_left(survives, span.newlines)
        keep = keep.index_fill(0, torch.cat([span.tokens, span.newlines]), False)
        keep = keep.index_fill(0, torch.cat([targets, newlines]), True)
        tokens = tokens.index_copy(0, targets, after.features)
        plans.append(plan)
        all_targets.append(targets)
        evidence = through(span.evidence, plan)
        remaining.append(VisualSpan(targets, after.shape, newlines, after.cell, evidence, after.before))
    index = keep.nonzero().flatten()
    _check_places(len(tokens) - len(index), spans, remaining, compressor)
    place = keep.cumsum(0) - 1
    moved = [replace(span, tokens=place[span.tokens], newlines=place[span.newlines]) for span in remaining]
    return ShortenedPrompt(tokens[index], index, spans, all_targets, plans, moved)


def _newlines_left(survives: Tensor, newlines: Tensor) -> Tensor:
    """Select the newlines, of those at positions (n,), with a surviving token between the previous newline and them."""
    counts = survives.cumsum(0)[newlines]
    return newlines[counts.diff(prepend=counts.new_zeros(1)) > 0]


def _even(plan: Plan) -> Plan:
    """Return the same plan with equal weights in every row."""
    flat = plan.flatten()
    counts = flat.rows.offsets.diff()
    return flat.weighted(torch.repeat_interleave(1 / counts.to(flat.rows.weights), counts))


def _check(spans: Sequence[VisualSpan], length: int) -> None:
    for span in spans:
        last = int(span.tokens.max()) if len(span.tokens) else -1
        if last >= length:
            raise ValueError(
                f"a video ends at position {last} of a prompt of {length} tokens; the first forward must contain the "
                "whole prompt (no chunked prefill), and the prompt must not be truncated"
            )


def _check_places(
    removed: int, before: Sequence[VisualSpan], after: Sequence[VisualSpan], compressor: Compressor
) -> None:
    """Check that no two tokens of a prompt have the same position."""
    expected = sum(len(span.tokens) + len(span.newlines) for span in before)
    expected -= sum(len(span.tokens) + len(span.newlines) for span in after)
    if removed != expected:
        raise ValueError(
            f"{compressor!r} puts {removed - expected} tokens at the places of others; inside the language model every "
            "token needs a place of its own"
        )
