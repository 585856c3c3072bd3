"""Similarity of tokens to earlier ones of their video: cosines, pair by pair, with no copy of all features.

Letters: N tokens, P pairs, D width, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.video_tokens import VideoTokens

_ENTRIES_ON_CPU, _ENTRIES_ON_GPU = 1 << 16, 1 << 26
"""Features that are converted at a time: what stays in a core's cache, or keeps a GPU busy."""


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines (n, ...) float32 of features (n, ..., D) of any floating dtype, one by one.

    Zeros are unlike everything, and so are features whose squares are beyond float32: their cosine is 0.
    """
    size = rows_at_a_time(first, first[:1].numel())
    blocks = zip(first.split(size), second.split(size), strict=True)
    return torch.cat([_cosines(one.float(), other.float()) for one, other in blocks])


def cosines_to_previous(tokens: VideoTokens) -> Tensor:
    """Return the cosine (N,) float32 of each token with the one before it on its place; -inf without one.

    That is the one of the frame before, or of the last frame that has a token there.
    """
    if tokens.cell is None:
        frames = tokens.features.view(tokens.shape[0], -1, tokens.features.shape[1])
        similarity = frames.new_full(frames.shape[:2], -torch.inf, dtype=torch.float32)
        if len(frames) > 1:
            similarity[1:] = cosines(frames[1:], frames[:-1])
        return similarity.flatten()
    order, is_first = chains(tokens)
    later, earlier = order[1:][~is_first[1:]], order[:-1][~is_first[1:]]
    size = rows_at_a_time(tokens.features, tokens.features.shape[1])
    pairs = zip(later.split(size), earlier.split(size), strict=True)
    found = [_cosines(tokens.features[one].float(), tokens.features[other].float()) for one, other in pairs]
    similarity = torch.full(order.shape, -torch.inf, device=order.device)
    return similarity.index_copy(0, later, torch.cat(found)) if len(later) else similarity


def chains(tokens: VideoTokens) -> tuple[Tensor, Tensor]:
    """Follow every place of the frame through time.

    Returns:
        The tokens (N,) int64 in the order of (row, column, frame), and whether each of them, in that order, is the
        first on its place (N,) bool.
    """
    place = tokens.cells() % (tokens.shape[1] * tokens.shape[2])
    order = place.argsort(stable=True)
    return order, F.pad(place[order].diff() != 0, (1, 0), value=True)


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    dots = torch.einsum("...d,...d->...", first, second)
    norms: Tensor = torch.linalg.vector_norm(first, dim=-1) * torch.linalg.vector_norm(second, dim=-1)
    return (dots / norms.clamp_min(torch.finfo(torch.float32).tiny)).nan_to_num(0, 0, 0)


def rows_at_a_time(features: Tensor, entries: int) -> int:
    """Return how many rows of `entries` numbers to convert at a time, on the device of `features`."""
    return max(1, (_ENTRIES_ON_GPU if features.is_cuda else _ENTRIES_ON_CPU) // entries)
