"""A prompt with videos in it, shortened: the tokens of each video, a grid, go through a compressor, text passes.

Letters: n tokens of the prompt, M of them left, T frames of H x W tokens, N of those left, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stgridpool.compressor import Compressor, compress
from stgridpool.evidence import Evidence
from stgridpool.plan import Plan, Shape, to_device
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class VisualSpan:
    """Where a video stands in a prompt. Positions count the prompt's real tokens from 0, without padding.

    Attributes:
        tokens: (N,) int64, ascending: the position of each visual token, in (frame, row, column) order.
        shape: (T, H, W) of the lattice that they stand on.
        newlines: (n,) int64, ascending: positions of the newline tokens that belong to the video.
        cell: (N,) int64, the cell of each token, or None if they fill the lattice.
        evidence: About the tokens, as far as it does not come from the language model.
    """

    tokens: Tensor
    shape: Shape
    newlines: Tensor
    cell: Tensor | None = None
    evidence: Evidence = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ShortenedPrompt:
    """What is left of a prompt.

    Attributes:
        tokens: (M, D).
        index: (M,) int64, ascending: which tokens of the prompt they are. A token that stands for several is the one
            that the compressor's plan puts it on.
        spans: The videos of the prompt.
        targets: For each video (N,) int64: positions in the whole prompt of those of its tokens that are left.
        plans: For each video what the compressor decided.
        num_newlines: Newline tokens that are left.
    """

    tokens: Tensor
    index: Tensor
    spans: Sequence[VisualSpan]
    targets: list[Tensor]
    plans: list[Plan]
    num_newlines: int

    def select(self, table: Tensor) -> Tensor:
        """The rows of a table (n, d) that are left: (M, d)."""
        return table[self.index]

    def merge(self, table: Tensor, evenly: bool = False) -> Tensor:
        """The rows of a table (n, d) put through the plans like the tokens: (M, d).

        Args:
            table: One row per token of the prompt.
            evenly: Give all tokens that became one the same weight, instead of the plan's weights.
        """
        for span, targets, plan in zip(self.spans, self.targets, self.plans, strict=True):
            weights = _even(plan) if evenly else plan
            table = table.index_copy(0, targets, weights.apply(table[span.tokens]))
        return table[self.index]


def shorten(tokens: Tensor, spans: Sequence[VisualSpan], compressor: Compressor) -> ShortenedPrompt:
    """Compress the videos of a prompt.

    A newline goes with the last token of its row or frame.

    Args:
        tokens: (n, D), the whole prompt; it is not changed.
        spans: Its videos, in order.
        compressor: Works on token grids (T, H, W, D).

    Raises:
        ValueError: If a video ends behind the prompt.
    """
    spans = [to_device(span, tokens.device) for span in spans]
    _check(spans, len(tokens))
    keep = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    plans, all_targets, num_newlines = [], [], 0
    for span in spans:
        compressed, plan = compress(compressor, VideoTokens(tokens[span.tokens], span.shape, span.cell), span.evidence)
        targets = span.tokens[plan.anchor.to(span.tokens.device)]  # (N,) positions of those that are left
        survives = torch.zeros_like(keep).index_fill(0, targets, True)
        kept_newlines = _newlines_left(survives, span.newlines)
        keep = keep.index_fill(0, torch.cat([span.tokens, span.newlines]), False)
        keep = keep.index_fill(0, torch.cat([targets, kept_newlines]), True)
        tokens = tokens.index_copy(0, targets, compressed.features)
        plans.append(plan)
        all_targets.append(targets)
        num_newlines += len(kept_newlines)
    index = keep.nonzero().flatten()
    return ShortenedPrompt(tokens[index], index, spans, all_targets, plans, num_newlines)


def _newlines_left(survives: Tensor, newlines: Tensor) -> Tensor:
    """Of newlines at positions (n,), those with a surviving token between the newline before and them."""
    counts = survives.cumsum(0)[newlines]
    return newlines[counts.diff(prepend=counts.new_zeros(1)) > 0]


def _even(plan: Plan) -> Plan:
    """The same plan with equal weights in every row."""
    flat = plan.flatten()
    counts = flat.rows.offsets.diff()
    return flat.weighted(torch.repeat_interleave(1 / counts.to(flat.rows.weights), counts))


def _check(spans: Sequence[VisualSpan], length: int) -> None:
    for span in spans:
        if len(span.tokens) and int(span.tokens[-1]) >= length:
            raise ValueError(
                f"a video ends at position {int(span.tokens[-1])} of a prompt of {length} tokens; the first forward "
                "must hold the whole prompt (no chunked prefill), and the prompt must not be cut"
            )
