"""Similarity of tokens to earlier ones of their video: cosines, pair by pair, with no copy of all features.

Letters: N tokens or places of a frame, D width, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.blocks_of_rows import on_cpu, rows_at_a_time
from stgridpool.algorithms.partner_cosines import cosines_in_frames, partner_cosines
from stgridpool.plan import to_device
from stgridpool.video_tokens import VideoTokens


def cosines_of_neighbours(frames: Tensor) -> Tensor:
    """Return the cosines (T - 1, N) float32 of features (T, N, D) with those of the frame before."""
    return cosines_to_earlier(frames, torch.ones(len(frames), dtype=torch.int64))[1:]


def cosines_to_earlier(frames: Tensor, frames_back: Tensor) -> Tensor:
    """Return the cosines (T, N) float32 of features with those on their places in an earlier frame; -inf without one.

    Args:
        frames: (T, N, D) of any floating dtype.
        frames_back: (T,) int64 on the CPU, how far back the frame stands with which each is compared; 0 for none.
    """
    count, width, _ = frames.shape
    earlier = torch.arange(count) - frames_back
    is_first = (earlier < 0) | (frames_back == 0)
    partners = (earlier[:, None] * width + torch.arange(width)).masked_fill(is_first[:, None], -1)
    partners = to_device(partners, frames.device)
    return cosines_in_frames(frames, partners[..., None], int(frames_back.max()))[..., 0]


def cosines_to_previous(tokens: VideoTokens) -> Tensor:
    """Return the cosine (N,) float32 of each token with the one before it on its place; -inf without one.

    That is the one of the frame before, or of the last frame that has a token there.
    """
    if tokens.cell is None:
        frames = tokens.features.view(tokens.shape[0], -1, tokens.features.shape[1])
        return cosines_to_earlier(frames, torch.ones(len(frames), dtype=torch.int64)).flatten()
    order, is_first = chains(tokens)
    before = F.pad(order[:-1], (1, 0)).masked_fill(is_first, -1)
    if not on_cpu(tokens.features) or tokens.features.dtype == torch.float32:
        partners = torch.empty_like(order).index_copy_(0, order, before)
        return partner_cosines(tokens.features, partners[:, None])[:, 0]
    size = max(2, rows_at_a_time(tokens.features))
    found = [tokens.features.new_full((1,), -torch.inf, dtype=torch.float32)]
    for start in range(0, len(order) - 1, size - 1):
        rows = tokens.features[order[start : start + size]].float()
        found.append(partner_cosines(rows, torch.arange(-1, len(rows) - 1)[:, None])[1:, 0])
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
