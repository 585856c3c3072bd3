"""Newline tokens between the visual tokens of a video, and the video as the language model gets it."""

from dataclasses import dataclass

import torch

from stgridpool import Plan

NEWLINE_POSITIONS = ("grid", "frame", "one_token", "no_token")


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """A video ready for the language model.

    Attributes:
        embeds: (L, D) visual tokens and newline tokens in order.
        plan: What the compressor decided; its length is the number of visual tokens.
        num_newlines: Newline tokens among the L.
    """

    embeds: torch.Tensor
    plan: Plan
    num_newlines: int


def insert_newlines(
    tokens: torch.Tensor, place: torch.Tensor, newline: torch.Tensor | None, position: str
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
    depth = 2 if position == "grid" else 1
    runs = place[:, :depth]
    ends = torch.ones(len(tokens), dtype=torch.bool, device=place.device)  # the last token of each row or frame
    ends[:-1] = (runs[1:] != runs[:-1]).any(dim=1)
    ends = ends.to(tokens.device)
    index = torch.arange(len(tokens), device=tokens.device) + ends.cumsum(0) - ends.long()
    laid_out = newline.repeat(len(tokens) + int(ends.sum()), 1)
    return laid_out.index_copy(0, index, tokens)
