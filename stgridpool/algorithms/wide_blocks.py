"""WideBlocks: features read block by block, in float32, in memory that all blocks share.

On the CPU, fresh memory costs more than the arithmetic, and a block should stay in a core's cache.

Letters: n frames, N places of a frame, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_ENTRIES_ON_CPU, _ENTRIES_ON_GPU = 1 << 18, 1 << 26
"""Features of a block: what stays in a core's cache, or keeps a GPU busy."""


def rows_at_a_time(features: Tensor) -> int:
    """Return how many rows (D,) of `features` (..., D) make a block on their device, at least 1."""
    return max(1, (_ENTRIES_ON_GPU if features.is_cuda else _ENTRIES_ON_CPU) // features.shape[-1])


@dataclass(frozen=True, eq=False)
class WideBlocks:
    """Blocks of (n, N, D) features, and memory to compute with them.

    Attributes:
        shape: (n, N).
        frames: Frames of a block.
        places: Places of a block.
        space: (buffers, frames * places, D) float32, each as large as a block.
    """

    shape: tuple[int, int]
    frames: int
    places: int
    space: Tensor

    @classmethod
    def of(cls, features: Tensor, depth: int = 1, buffers: int = 1) -> WideBlocks:
        """Choose the blocks of `features` (n, N, D), of `depth` frames if they have as many, and `buffers` for them."""
        count, width, channels = features.shape
        rows = rows_at_a_time(features)
        places = max(1, min(width, rows // min(depth, count)))
        frames = min(count, max(depth, rows // places))
        space = features.new_empty(buffers, frames * places, channels, dtype=torch.float32)
        return cls((count, width), frames, places, space)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Yield the frames and the places of each block."""
        return self.overlapping(0)

    def overlapping(self, overlap: int) -> Iterator[tuple[slice, slice]]:
        """Yield the frames and the places of blocks that begin with the last `overlap` frames of the one before."""
        for place in range(0, self.shape[1], self.places):
            for frame in range(0, max(1, self.shape[0] - overlap), max(1, self.frames - overlap)):
                yield slice(frame, frame + self.frames), slice(place, place + self.places)

    def wide(self, block: Tensor, buffer: int = 0) -> Tensor:
        """Return a block (t, p, D) in float32: itself if it is, else a copy in that buffer."""
        block = block.detach()
        return block if block.dtype == torch.float32 else self._buffer(block, buffer).copy_(block)

    def cosines(self, one: Tensor, other: Tensor, lengths: tuple[Tensor, Tensor], buffer: int) -> Tensor:
        """Return the cosines of two float32 blocks (t, p, D) with these `lengths`, (t, p) each; computed there.

        Zeros are unlike everything, and so are features whose squares are beyond float32: their cosine is 0.
        """
        dots = torch.mul(one, other, out=self._buffer(one, buffer)).sum(-1)
        return (dots / (lengths[0] * lengths[1]).clamp_min(torch.finfo(torch.float32).tiny)).nan_to_num(0, 0, 0)

    def _buffer(self, block: Tensor, buffer: int) -> Tensor:
        return self.space[buffer].flatten()[: block.numel()].view(block.shape)
