"""Which rows are equal, so that ties between them go to the first and not to how a matrix product rounds.

A product computes the rows and columns at the edge of a tile in another order than others, and where tiles end depends
on the number of threads: cosines with equal tokens may differ in the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.blocks_of_rows import on_cpu, rows_at_a_time


def first_equals(rows: Tensor) -> Tensor:
    """Return the first row of its set that equals each row, itself if none before it does: (K, R) int64.

    Args:
        rows: (K, R, D) float32.
    """
    weight = torch.linspace(1, 2, rows.shape[2], device=rows.device)
    blocks = rows.split(max(1, rows_at_a_time(rows) // len(rows)), dim=1)
    key = torch.cat([(block * weight).sum(2) for block in blocks], dim=1)  # the same for equal rows
    key, order = key.sort(dim=1, stable=True)
    place = torch.arange(rows.shape[1], device=rows.device).expand_as(order)
    is_start = F.pad(key[:, 1:] != key[:, :-1], (1, 0), value=True)
    if on_cpu(rows) and bool(is_start.all()):  # on a GPU, asking takes longer than comparing
        return place.contiguous()
    start = place.where(is_start, 0).cummax(1).values
    first = torch.empty_like(order).scatter(1, order, order.gather(1, start))
    is_equal = (rows == rows.gather(1, first[:, :, None].expand_as(rows))).all(2)
    return first.where(is_equal, place)
