"""EncodedVideo: a video in the form that the language model reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from stgridpool import Need, Plan, Shape, VideoTokens
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.finite import StageCheck
from stgridpool.newlines import insert_newlines, token_positions


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """A video in the form that the language model reads.

    Attributes:
        embeds: (L, D), visual tokens and newline tokens in order.
        plan: The plan of the compressors before the language model; its length is the number of visual tokens.
        source_shape: (T, n, n) of the patches, the source tokens of `plan`.
        shape: (T', H', W') of the lattice of the visual tokens.
        cell: (N,) int64, the cell of each visual token, or None if they fill the lattice.
        num_newlines: Number of newline tokens among the L.
        newline_position: Position of newline tokens, one of `NEWLINE_POSITIONS`.
        checks: Whether the output of each stage is finite, as tensors on the device; `generate` reads them.
        evidence: Evidence about the visual tokens, for compressors inside the language model.
        positions: (N,) int64, the position of each visual token among the L; None if `newline_position` implies them.
    """

    embeds: torch.Tensor
    plan: Plan
    source_shape: Shape
    shape: Shape
    cell: torch.Tensor | None
    num_newlines: int
    newline_position: str = "no_token"
    checks: tuple[StageCheck, ...] = ()
    evidence: Mapping[Need, torch.Tensor] = field(default_factory=dict)
    positions: torch.Tensor | None = None

    @classmethod
    def of(
        cls, tokens: VideoTokens, plan: Plan, source_shape: Shape, newline: torch.Tensor | None, position: str
    ) -> "EncodedVideo":
        """Lay out tokens with newlines; for the arguments see the attributes and `insert_newlines`."""
        embeds = insert_newlines(tokens, newline, position)
        return cls(embeds, plan, source_shape, tokens.shape, tokens.cell, len(embeds) - len(tokens), position)

    @property
    def num_sources(self) -> None:
        """None: patches fill their lattice."""
        return None

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens, without newline tokens."""
        return len(self.embeds) - self.num_newlines

    def span(self, start: int) -> VisualSpan:
        """Return the positions of its tokens in a prompt where the video begins at position `start`."""
        if self.positions is None:
            places = VideoTokens(self.embeds[: self.num_tokens], self.shape, self.cell).places()
            tokens = token_positions(places, self.newline_position)
        else:
            tokens = self.positions
        is_newline = torch.ones(len(self.embeds), dtype=torch.bool, device=tokens.device).index_fill(0, tokens, False)
        newlines = is_newline.nonzero().flatten()
        return VisualSpan(start + tokens, self.shape, start + newlines, self.cell, self.evidence)
