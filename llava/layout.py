"""Newline tokens between the visual tokens of a video, and the video as the language model gets it."""

import math
from dataclasses import dataclass

import torch

from stgridpool import Plan
from stgridpool.decoder.steps import VisualSpan
from stgridpool.finite import StageCheck

NEWLINE_POSITIONS = ("grid", "frame", "one_token", "no_token")


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """A video ready for the language model.

    Attributes:
        embeds: (L, D) visual tokens and newline tokens in order.
        plan: What the compressor decided; its length is the number of visual tokens.
        num_newlines: Newline tokens among the L.
        newline_position: Where they stand, one of `NEWLINE_POSITIONS`.
        checks: Whether what each stage gave is finite. Nobody has waited for them yet: `generate` reads them.
    """

    embeds: torch.Tensor
    plan: Plan
    num_newlines: int
    newline_position: str = "no_token"
    checks: tuple[StageCheck, ...] = ()

    def span(self, start: int) -> VisualSpan:
        """Where its tokens stand in a prompt that it begins at position `start` of.

        Raises:
            ValueError: If the tokens do not fill the grid that they stand on.
        """
        if len(self.plan) != math.prod(self.plan.shape):
            raise ValueError(
                f"{len(self.plan)} tokens do not fill a grid of {self.plan.shape}: a compressor inside the language "
                "model can follow one that keeps whole grids, such as average, bilinear or st_gridpool"
            )
        tokens = token_positions(self.plan.place, self.newline_position).to(self.embeds.device)
        is_newline = torch.ones(len(self.embeds), dtype=torch.bool, device=tokens.device).index_fill(0, tokens, False)
        return VisualSpan(start + tokens, self.plan.shape, start + is_newline.nonzero().flatten())


def insert_newlines(
    tokens: torch.Tensor,
    place: torch.Tensor,
    newline: torch.Tensor | None,
    position: str,
    shape: tuple[int, int, int] | None = None,
) -> torch.Tensor:
    """Puts newline tokens between the visual tokens of a video.

    Rows and frames are read from where the tokens stand, so that any number of tokens may be left in each. A row or a
    frame without tokens gets no newline.

    Args:
        tokens: (N, D) visual tokens.
        place: (N, 3) frame, row and column of each, ascending.
        newline: (D,) the newline token; may be None for `no_token`.
        position: `grid`: after every row of every frame; `frame`: after every frame; `one_token`: once, at the end;
            `no_token`: nowhere.
        shape: (T, H, W) of the lattice that they stand on. Where they fill it, the number of newlines follows from it,
            and nobody has to wait for the device to count them.

    Returns:
        (N + number of newlines, D).

    Raises:
        ValueError: `position` is unknown, or it asks for a newline and there is none.
    """
    if position not in NEWLINE_POSITIONS:
        raise ValueError(f"mm_newline_position must be one of {', '.join(NEWLINE_POSITIONS)}, got {position!r}")
    if position == "no_token" or not len(tokens):
        return tokens
    if newline is None:
        raise ValueError(
            f"mm_newline_position {position!r} needs a newline token, and the checkpoint has none; use no_token"
        )
    newline = newline.to(tokens)
    if position == "one_token":
        return torch.cat([tokens, newline[None]])
    index = token_positions(place, position).to(tokens.device)
    if shape is not None and len(tokens) == math.prod(shape):
        length = len(tokens) + count_newlines(shape, position)
    else:
        length = int(index[-1]) + 2
    laid_out = newline.repeat(length, 1)
    return laid_out.index_copy(0, index, tokens)


def count_newlines(shape: tuple[int, int, int], position: str) -> int:
    """Newlines of a video whose tokens fill a lattice of (T, H, W), for a position of `insert_newlines`."""
    frames, height, _ = shape
    return {"grid": frames * height, "frame": frames, "one_token": 1, "no_token": 0}[position]


def token_positions(place: torch.Tensor, position: str) -> torch.Tensor:
    """Where each visual token stands among visual and newline tokens, (N,), for arguments of `insert_newlines`."""
    order = torch.arange(len(place), device=place.device)
    if position in ("no_token", "one_token"):
        return order
    runs = place[:, : 2 if position == "grid" else 1]
    begins = torch.zeros(len(place), dtype=torch.long, device=place.device)  # 1 at the first token behind a newline
    begins[1:] = (runs[1:] != runs[:-1]).any(dim=1)
    return order + begins.cumsum(0)
