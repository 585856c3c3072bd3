"""Similarity of tokens to earlier ones of their video: cosines, pair by pair, with no copy of all features.

Letters: N tokens or places of a frame, D width, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.wide_blocks import WideBlocks, rows_at_a_time
from stgridpool.video_tokens import VideoTokens

_DEPTH = 9
"""Frames of a block at least: each is compared with the one before, so the last is read again with the next block."""


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines (n, N) float32 of features (n, N, D) of any floating dtype, one by one.

    Zeros are unlike everything, and so are features whose squares are beyond float32: their cosine is 0.
    """
    blocks = WideBlocks.of(first, buffers=3)
    found = first.new_empty(first.shape[:2], dtype=torch.float32)
    for block in blocks:
        one, other = blocks.wide(first[block]), blocks.wide(second[block], 1)
        lengths = torch.linalg.vector_norm(one, dim=-1), torch.linalg.vector_norm(other, dim=-1)
        found[block] = blocks.cosines(one, other, lengths, 2)
    return found


def cosines_of_neighbours(frames: Tensor) -> Tensor:
    """Return the cosines (n - 1, N) float32 of features (n, N, D) with those of the frame before, see `cosines`."""
    blocks = WideBlocks.of(frames, _DEPTH, buffers=2)
    found = frames.new_empty(len(frames) - 1, frames.shape[1], dtype=torch.float32)
    for frame, place in blocks.overlapping(1):
        found[frame.start : frame.stop - 1, place] = _with_the_one_before(blocks, frames[frame, place])
    return found


def cosines_to_previous(tokens: VideoTokens) -> Tensor:
    """Return the cosine (N,) float32 of each token with the one before it on its place; -inf without one.

    That is the one of the frame before, or of the last frame that has a token there.
    """
    if tokens.cell is None:
        frames = tokens.features.view(tokens.shape[0], -1, tokens.features.shape[1])
        return F.pad(cosines_of_neighbours(frames), (0, 0, 1, 0), value=-torch.inf).flatten()
    order, is_first = chains(tokens)
    found = [tokens.features.new_full((1,), -torch.inf, dtype=torch.float32)]
    size = max(2, rows_at_a_time(tokens.features))
    blocks = WideBlocks.of(tokens.features[: min(size, len(tokens)), None], size, buffers=2)
    for start in range(0, len(order) - 1, size - 1):
        rows = tokens.features.index_select(0, order[start : start + size])
        found.append(_with_the_one_before(blocks, rows[:, None])[:, 0])
    similarity = torch.cat(found).masked_fill(is_first, -torch.inf)
    return torch.empty_like(similarity).index_copy_(0, order, similarity)


def chains(tokens: VideoTokens) -> tuple[Tensor, Tensor]:
    """Follow every place of the frame through time.

    Returns:
        The tokens (N,) int64 in the order of (row, column, frame), and whether each of them, in that order, is the
        first on its place (N,) bool.
    """
    place = tokens.cells() % (tokens.shape[1] * tokens.shape[2])
    order = place.argsort(stable=True)
    return order, F.pad(place[order].diff() != 0, (1, 0), value=True)


def _with_the_one_before(blocks: WideBlocks, block: Tensor) -> Tensor:
    """Return the cosines (t - 1, p) of neighbours in time within a block (t, p, D)."""
    wide = blocks.wide(block)
    lengths = torch.linalg.vector_norm(wide, dim=-1)
    return blocks.cosines(wide[1:], wide[:-1], (lengths[1:], lengths[:-1]), 1)
