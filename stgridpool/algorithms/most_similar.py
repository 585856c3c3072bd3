"""Which of the tokens kept is most similar to each of the others, by the direction of their features.

Letters: N tokens, C kept ones, D width; T frames of at most R tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.blocks_of_rows import on_cpu
from stgridpool.algorithms.equal_rows import first_equals
from stgridpool.algorithms.sets import Sets

MOST_ENTRIES = 1 << 24
"""Similarities that are in memory at a time: 64 MB."""
_FEATURES_ON_CPU, _FEATURES_ON_GPU = 1 << 21, 1 << 25


def most_similar(features: Tensor, tokens: Tensor, kept: Tensor) -> Tensor:
    """Return which of `kept` is most similar to each of `tokens`, 0 to C - 1; ties go to the first.

    Args:
        features: (N, D) of any floating dtype.
        tokens: (n,) int64, at least one.
        kept: (C,) int64, at least one.
    """
    unit = F.normalize(features[kept].float(), dim=-1)
    blocks = tokens.split(max(1, MOST_ENTRIES // len(kept)))
    nearest = torch.cat([(F.normalize(features[block].float(), dim=-1) @ unit.T).argmax(1) for block in blocks])
    return first_equals(unit[None])[0, nearest]


def most_similar_in_set(features: Tensor, sets: Sets, is_kept: Tensor) -> Tensor:
    """Return the token kept of its own set that is most similar to each token; ties go to the first.

    Args:
        features: (N, D) of any floating dtype.
        sets: Such as the frames; every token is in one of them.
        is_kept: (N,) bool.

    Returns:
        (N,) int64, a token for each token; -1 where nothing of its set is kept. Tokens kept are their own.
    """
    is_target = is_kept[sets.index] & sets.is_there  # (T, R)
    counts = is_target.sum(1)
    places = is_target.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]  # (T, C)
    is_free = torch.arange(places.shape[1], device=places.device) >= counts[:, None]
    found = []
    most = _FEATURES_ON_CPU if on_cpu(features) else _FEATURES_ON_GPU
    step = max(1, most // (sets.index.shape[1] * features.shape[1]))
    for index, place, free in zip(*(part.split(step) for part in (sets.index, places, is_free)), strict=True):
        unit = F.normalize(features[index].float(), dim=-1)  # (t, R, D)
        chosen = unit.gather(1, place[:, :, None].expand(-1, -1, unit.shape[2]))
        cosine = (unit @ chosen.mT).masked_fill_(free[:, None], -torch.inf)  # (t, R, C)
        found.append(index.gather(1, place.gather(1, first_equals(chosen).gather(1, cosine.argmax(2)))))
    goes_to = torch.cat(found).masked_fill((counts == 0)[:, None], -1)
    everyone = torch.arange(len(features), device=features.device)
    nearest = torch.empty_like(everyone).index_copy(0, sets.index[sets.is_there], goes_to[sets.is_there])
    return everyone.where(is_kept, nearest)
