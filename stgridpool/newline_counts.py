"""Where a video can have newline tokens, and how many they are; imports nothing, so that options are checked fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stgridpool.plan import Shape

NEWLINE_POSITIONS = ("grid", "frame", "one_token", "no_token")
"""After every row of every frame; after every frame; once, at the end; nowhere."""


def count_newlines(shape: Shape, position: str) -> int:
    """Count the newline tokens of a video whose visual tokens fill a lattice of (T, H, W)."""
    frames, height, _ = shape
    return {"grid": frames * height, "frame": frames, "one_token": 1, "no_token": 0}[position]
