"""Cosines of tokens with chosen partners, such as their neighbours, with no copy of all features.

On the CPU, `torch.sparse.sampled_addmm` computes the dot products of chosen pairs of rows: it reads the features once
and writes nothing but the products. It takes float32; other dtypes are converted block by block, in memory that all
blocks share and that stays in the cache.

Letters: T frames of N places, R rows, K partners of each, D width.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from stgridpool.algorithms.blocks_of_rows import on_cpu, rows_at_a_time

_FRAMES, _ENTRIES = 16, 1 << 20
"""Frames of a block at least, and its features, apart from earlier ones that only serve as partners."""


def partner_cosines(rows: Tensor, partners: Tensor) -> Tensor:
    """Return the cosines (R, K) float32 of rows with their partners.

    Zeros are unlike everything, and so are features whose squares are beyond float32: their cosine is 0. Otherwise that
    of equal rows is exactly 1.

    Args:
        rows: (R, D), of any floating dtype on other devices, float32 on the CPU.
        partners: (R, K) int64, the rows with which each is compared; -1 for none, where -inf is returned.
    """
    itself = torch.arange(len(rows), device=rows.device)[:, None]
    pairs = torch.cat([itself, partners.where(partners >= 0, itself)], dim=1)  # (R, 1 + K)
    return _cosines(_products(rows, pairs), partners)


def cosines_in_frames(frames: Tensor, partners: Tensor, frames_back: int, places_back: int = 0) -> Tensor:
    """Return the cosines (T, N, K) float32 of tokens with earlier ones, see `partner_cosines`.

    Args:
        frames: (T, N, D) of any floating dtype.
        partners: (T, N, K) int64, the numbers of tokens, counted in (frame, place) order; -1 for none.
        frames_back: Largest number of frames by which a partner precedes its token.
        places_back: Largest number of places by which it does; no partner has a later place than its token.
    """
    if not on_cpu(frames) or frames.dtype == torch.float32:
        return partner_cosines(frames.flatten(0, 1), partners.flatten(0, 1)).view(partners.shape)
    (count, width, channels), found = frames.shape, torch.empty(*partners.shape[:2], 1 + partners.shape[2])
    places = max(1, min(width, _ENTRIES // (channels * _FRAMES)))
    depth = min(count, max(_FRAMES, _ENTRIES // (channels * places)))
    space = torch.empty((depth + frames_back) * (places + places_back) * channels)
    theirs = partners.where(partners >= 0, torch.arange(count * width).view(count, width, 1))
    their_frame, their_place = theirs // width, theirs % width
    for place in range(0, width, places):
        for frame in range(0, count, depth):
            new = slice(frame, frame + depth), slice(place, place + places)
            first, left = max(0, frame - frames_back), max(0, place - places_back)
            block = frames[first : new[0].stop, left : new[1].stop].detach()
            rows = space[: block.numel()].view(block.shape).copy_(block).flatten(0, 1)
            pairs = torch.arange(len(rows)).view(*block.shape[:2], 1).repeat(1, 1, found.shape[2])
            local = (their_frame[new] - first) * block.shape[1] + their_place[new] - left
            pairs[frame - first :, place - left :, 1:] = local
            products = _products(rows, pairs.flatten(0, 1)).view(pairs.shape)
            found[new] = products[frame - first :, place - left :]
    return _cosines(found.flatten(0, 1), partners.flatten(0, 1)).view(partners.shape)


def _cosines(products: Tensor, partners: Tensor) -> Tensor:
    """Return the cosines (R, K) float32 for products (R, 1 + K) of rows with themselves and with their partners."""
    square = products[:, 0]
    cosines = products[:, 1:] / _root_of_product(square[:, None], square[partners.clamp_min(0)])
    return cosines.nan_to_num(0, 0, 0).masked_fill(partners < 0, -torch.inf).float()


def _root_of_product(one: Tensor, other: Tensor) -> Tensor:
    """Return the root of the product of two squares, which is exact where they are equal."""
    if one.device.type == "mps":  # Apple's GPUs have no float64
        return _root_in_float32(one, other)
    return (one.double() * other.double()).sqrt()


def _root_in_float32(one: Tensor, other: Tensor) -> Tensor:
    return torch.where(one == other, one, one.sqrt() * other.sqrt())  # no product of squares, which may be infinite


def row_products(rows: Tensor, others: Tensor) -> Tensor:
    """Return the dot products (R,) of each of `rows` (R, D) with the same of `others` (R, D), both float32."""
    if not on_cpu(rows):
        return (rows * others).sum(-1)
    return _sampled(rows, others, torch.arange(len(rows))[:, None])[:, 0]


def _products(rows: Tensor, pairs: Tensor) -> Tensor:
    """Return the dot products (R, P) float32 of rows (R, D) with those that `pairs` (R, P) int64 names."""
    rows = rows.detach()
    if not on_cpu(rows) or len(pairs) < pairs.shape[1]:  # a sparse matrix cannot hold more entries than a dense one
        return _products_one_by_one(rows, pairs)
    return _sampled(rows, rows, pairs)


def _sampled(rows: Tensor, others: Tensor, pairs: Tensor) -> Tensor:
    """Return the dot products (R, P) of rows (R, D) with those of `others` (R, D) that `pairs` (R, P) names."""
    count, each = pairs.shape
    ends = torch.arange(0, count * each + 1, each)
    with warnings.catch_warnings(action="ignore"):  # the format is in beta state
        wanted = torch.sparse_csr_tensor(
            ends, pairs.flatten(), torch.zeros(count * each), (count, count), check_invariants=False
        )
    products: Tensor = torch.sparse.sampled_addmm(wanted, rows, others.T, beta=0).values()
    return products.view(count, each)


def _products_one_by_one(rows: Tensor, pairs: Tensor) -> Tensor:
    """Return what `_products` returns, of rows of any dtype, with few calls on many rows each."""
    step, found = rows_at_a_time(rows), []
    for block, partners in zip(rows.split(step), pairs.split(step), strict=True):
        wide = block.float()
        found.append(torch.stack([(wide * rows[one].float()).sum(-1) for one in partners.unbind(1)], dim=1))
    return torch.cat(found)
