"""The features of a video frame by frame, in float32 blocks that stay in a core's cache or keep a GPU busy.

Letters: T frames of at most R tokens, N tokens, D width; blocks of r places in each of t frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from stgridpool.algorithms.blocks_of_rows import on_cpu
from stgridpool.algorithms.sets import Sets
from stgridpool.plan import to_device
from stgridpool.video_tokens import VideoTokens

_ENTRIES_ON_CPU, _ENTRIES_ON_GPU = 3 << 19, 1 << 25
"""Most features of a block, as far as one tile or one frame allows."""
_FRAMES_ON_CPU = 4
"""Frames of a block: its products are one per frame, and those of different frames run on different cores."""
_TILE = 16
"""Rows that a matrix product on a CPU computes in one way; fewer differ in the last bit."""


class Block(NamedTuple):
    """Some places of some frames.

    Attributes:
        rows: (t, r, D) float32, with zeros where no token is. They hold until the next block, which may be in the same
            memory.
        first: How many of the places were in the block before, too.
    """

    rows: Tensor
    first: int

    @property
    def new(self) -> Tensor:
        """Return the rows that were not in the block before."""
        return self.rows[:, self.first :] if self.first else self.rows

    def of_new(self, found: Tensor) -> Tensor:
        """Return what was found for these (t, k, r') of what was found for all (t, k, r)."""
        return found[:, :, self.first :] if self.first else found


@dataclass(frozen=True, eq=False)
class FrameBlocks:
    """Walks through the features; make one with `of`.

    Attributes:
        features: (T, R, D) as they are, or (N, D) if frames differ in size.
        sets: Which tokens belong to each frame; None if they fill the lattice.
        sizes: (T,) int64, the tokens of each frame.
        longest: R.
        pieces: The places of each block of a frame.
        space: (t, r, D) float32 to compute in: fresh memory costs more than the arithmetic.
        copied: The same for blocks that are not features as they are; None if all are.
        scale: What the features are divided by.
    """

    features: Tensor
    sets: Sets | None
    sizes: Tensor
    longest: int
    pieces: list[_Piece]
    space: Tensor
    copied: Tensor | None
    scale: float = 1.0

    @classmethod
    def of(cls, tokens: VideoTokens) -> FrameBlocks:
        """Divide `tokens` into blocks: on a CPU part of a few frames, on a GPU several whole ones."""
        features, (frames, height, width) = tokens.features, tokens.shape
        sets = None if tokens.cell is None else Sets.within(tokens, "frame")
        sizes = torch.full((frames,), height * width) if sets is None else sets.sizes
        longest, channels = int(sizes.max()), features.shape[1]
        if on_cpu(features):
            step = min(_FRAMES_ON_CPU, frames)
            pieces = _pieces(longest, _ENTRIES_ON_CPU // (step * channels))
        else:
            step = min(max(1, _ENTRIES_ON_GPU // (longest * channels)), frames)
            pieces = [_Piece(0, longest, 0)]
        most = max(piece.stop - piece.start for piece in pieces)
        space = features.new_empty((step, most, channels), dtype=torch.float32)
        is_as_needed = sets is None and features.dtype == torch.float32 and pieces[-1].stop == longest
        copied = None if is_as_needed else torch.empty_like(space)
        table = features.view(frames, longest, -1) if sets is None else features
        return cls(table, sets, to_device(sizes, features.device), longest, pieces, space, copied)

    def scaled(self) -> FrameBlocks:
        """Return the same tokens brought to magnitudes of at most 1."""
        largest = float(torch.stack(self.features.aminmax()).abs().max()) or 1.0
        scale = min(largest, torch.finfo(torch.float32).max)
        return replace(self, copied=torch.empty_like(self.space), scale=scale)

    @property
    def num_tokens(self) -> int:
        """Return N."""
        return self.features[..., 0].numel()

    def groups(self, values: Tensor) -> Iterator[tuple[Iterator[Block], Tensor]]:
        """Yield the blocks of a few frames, and what belongs to these frames of `values` (T, ...), in order."""
        step = len(self.space)
        for start, part in zip(range(0, len(values), step), values.split(step), strict=True):
            yield self._blocks(slice(start, start + step)), part

    def _blocks(self, frames: slice) -> Iterator[Block]:
        for piece in self.pieces:
            places = slice(piece.start, piece.stop)
            rows = self.features[frames, places] if self.copied is None else self._copy(frames, places, self.copied)
            yield Block(rows, piece.first)

    def _copy(self, frames: slice, places: slice, target: Tensor) -> Tensor:
        table = self.features if self.sets is None else self.sets.index
        found = table[frames, places]
        rows = target[: len(found), : places.stop - places.start]
        rows[:, found.shape[1] :] = 0  # in a frame smaller than a tile
        found_rows = rows[:, : found.shape[1]].copy_(found if self.sets is None else self.features[found])
        if self.sets is not None:
            found_rows *= self.sets.is_there[frames, places, None]
        if self.scale != 1:
            largest = torch.finfo(torch.float32).max
            rows.clamp_(-largest, largest).div_(self.scale)  # a sum may have overflowed before
        return rows

    def zeros(self, width: int) -> Tensor:
        """Return zeros (T, 1, width), into which to add what is found for each frame."""
        return torch.zeros(len(self.sizes), 1, width, device=self.space.device)

    def space_for(self, rows: Tensor) -> Tensor:
        """Return as much of `space` as `rows` are large."""
        return self.space[: rows.shape[0], : rows.shape[1]]

    def joined(self, found: list[Tensor]) -> Tensor:
        """Return what was found for the new rows of each block (t, k, r) as (T, k, R)."""
        number = len(self.pieces)
        groups = [torch.cat(found[start : start + number], dim=2) for start in range(0, len(found), number)]
        return torch.cat(groups)[:, :, : self.longest]

    def of_each_token(self, values: Tensor) -> Tensor:
        """Return the rows (N, k) of values (T, R, k) in the order of the tokens."""
        rows = values.flatten(0, 1)
        if self.sets is None:
            return rows
        places = self.sets.is_there.flatten()
        return torch.empty_like(rows[places]).index_copy_(0, self.sets.index.flatten()[places], rows[places])


class _Piece(NamedTuple):
    """The places of a frame from `start` up to `stop`, of which `first` belong to the piece before, too."""

    start: int
    stop: int
    first: int


def _pieces(longest: int, most: int) -> list[_Piece]:
    """Divide the places of a frame into whole tiles, about `most` places at a time.

    Equal rows get equal products in whole tiles only: which of equal tokens is kept would otherwise depend on where
    blocks end. Where tiles do not fit, the last piece begins earlier; a frame smaller than a tile is exceeded.
    """
    tiles = -(-longest // _TILE)
    number = -(-tiles // max(1, most // _TILE))
    if longest % _TILE:
        number = max(number, min(tiles, 2))
    edges = [tiles * piece // number * _TILE for piece in range(number + 1)]
    early = min(edges[-1] - longest, edges[-2])
    last = _Piece(edges[-2] - early, edges[-1] - early, early)
    return [*(_Piece(start, stop, 0) for start, stop in pairwise(edges[:-1])), last]
