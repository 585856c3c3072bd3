"""Newline tokens, which some models put between the rows or frames of a video's visual tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from stgridpool.newline_counts import NEWLINE_POSITIONS, count_newlines
from stgridpool.video_tokens import VideoTokens

__all__ = ["NEWLINE_POSITIONS", "count_newlines", "insert_newlines", "token_positions"]


def insert_newlines(tokens: VideoTokens, newline: Tensor | None, position: str) -> Tensor:
    """Insert newline tokens between the visual tokens of a video.

    Rows and frames follow from the places of the tokens, so each may hold any number of tokens. A row or frame
    without tokens gets no newline.

    Args:
        tokens: N tokens, in the order of their places.
        newline: (D,), the newline token; may be None for `no_token`.
        position: One of `NEWLINE_POSITIONS`.

    Returns:
        (N + number of newlines, D).

    Raises:
        ValueError: If `position` is unknown, or needs a newline token and there is none.
    """
    if position not in NEWLINE_POSITIONS:
        raise ValueError(f"mm_newline_position must be one of {', '.join(NEWLINE_POSITIONS)}, got {position!r}")
    features = tokens.features
    if position == "no_token":
        return features
    if newline is None:
        raise ValueError(
            f"mm_newline_position {position!r} needs a newline token, and the checkpoint has none; use no_token"
        )
    newline = newline.to(features)
    if position == "one_token":
        return torch.cat([features, newline[None]])
    index = token_positions(tokens.places(), position)
    # On a whole lattice the number of newlines is known without waiting for the device.
    length = len(tokens) + count_newlines(tokens.shape, position) if tokens.cell is None else int(index[-1]) + 2
    return newline.repeat(length, 1).index_copy(0, index, features)


def token_positions(places: Tensor, position: str) -> Tensor:
    """Return the position of each visual token among visual and newline tokens, (N,) int64.

    Args:
        places: (N, 3), frame, row and column of each visual token.
        position: One of `NEWLINE_POSITIONS`.
    """
    order = torch.arange(len(places), device=places.device)
    if position in ("no_token", "one_token"):
        return order
    runs = places[:, : 2 if position == "grid" else 1]
    begins = torch.zeros(len(places), dtype=torch.long, device=places.device)  # 1 at the first token after a newline
    begins[1:] = (runs[1:] != runs[:-1]).any(dim=1)
    return order + begins.cumsum(0)
