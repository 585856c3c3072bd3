"""BlockAverage: the pooling with which checkpoints with a TSP video encoder were trained."""

import logging
import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from llava.nvila.encoders import PoolSizes
from stgridpool import Compressor, Evidence, Plan, Shape, VideoTokens
from stgridpool.frames.groups import pool_over_time
from stgridpool.frames.layout import resident
from stgridpool.frames.patterns import pooling_windows
from stgridpool.rows import Rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockAverage(Compressor):
    """Replace every block of frames, rows and columns by its mean; several sizes pool the whole video one by one.

    If a size does not divide the number of frames, the last frame is repeated, and this is logged. The original raises
    an error there, so that one unreadable frame ends an evaluation.

    Source: https://github.com/NVlabs/VILA (April 2025), TSPVideoEncoder; https://arxiv.org/abs/2412.04468 (NVILA).

    Attributes:
        sizes: (frames, rows, columns) of the blocks. Rows and columns divide those of every frame.
    """

    sizes: PoolSizes = ((8, 1, 1),)

    def planned_shape(self, shape: Shape) -> Shape | None:
        """Return the lattice of the blocks; None if there are several sizes."""
        return self._pooled(shape)[0] if len(self.sizes) == 1 else None

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of blocks."""
        del total
        return self.num_tokens(shape)

    def num_tokens(self, shape: Shape) -> int:
        """Return the number of blocks of all sizes."""
        return sum(map(math.prod, self._pooled(shape)))

    def num_frames(self, shape: Shape) -> tuple[int, ...]:
        """Return the number of frames after the pooling with each size."""
        return tuple(frames for frames, _, _ in self._pooled(shape))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:  # noqa: ARG002
        """Average the blocks of each size, and put the results one after the other."""
        maps, shape = tokens.maps(), tokens.shape
        uneven = [size for size, _, _ in self.sizes if shape[0] % size]
        if uneven:
            logger.warning("%d frames are not a multiple of %d: the last one counts several times", shape[0], uneven[0])
        plans = [_blocks(shape, size) for size in self.sizes]
        plan = plans[0] if len(plans) == 1 else Plan.concat(plans)
        return resident(plan, maps.device)

    def _pooled(self, shape: Shape) -> list[Shape]:
        frames, rows, columns = shape
        for size in self.sizes:
            if rows % size[1] or columns % size[2]:
                raise ValueError(f"pool_sizes must divide the {rows} x {columns} tokens of a frame, got {list(size)}")
        return [(-(-frames // size[0]), rows // size[1], columns // size[2]) for size in self.sizes]


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _blocks(shape: Shape, size: tuple[int, int, int]) -> Plan:
    """Average blocks of one size; on the CPU."""
    window = size[1:]
    return pool_over_time(
        _runs(shape[0], size[0]), pooling_windows(shape[1:], window, window, (0, 0), False).pattern, shape
    )


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _runs(num_frames: int, size: int) -> Rows:
    """Average runs of `size` frames, of which the last may count its last frame several times."""
    starts = torch.arange(0, num_frames, size)
    ends = (starts + size).clamp(max=num_frames)
    weights = torch.full((num_frames,), 1 / size)
    weights[-1] += -num_frames % size / size
    return Rows(torch.arange(num_frames), torch.cat([starts, ends[-1:]]), weights)
