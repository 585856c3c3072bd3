"""The fraction of values that are outliers."""

from __future__ import annotations

import torch
from torch import Tensor


def outlier_shares(values: Tensor, is_there: Tensor) -> list[float]:
    """Return for each set the fraction of its values that stand out, 0 to 0.25.

    A value stands out that is above the third quartile by more than 1.5 times the distance of the first and the third;
    quartiles are interpolated. Waits for the device.

    Args:
        values: (K, R) float32.
        is_there: (K, R) bool, which of them exist; at least one in each set that is not to be 0.
    """
    known = values.float().masked_fill(~is_there, torch.nan)
    first, third = torch.nanquantile(known, torch.tensor([0.25, 0.75], device=values.device), dim=1)  # (K,) each
    stands_out = known > (third + 1.5 * (third - first))[:, None]
    pairs = zip(stands_out.sum(1).tolist(), is_there.sum(1).tolist(), strict=True)
    return [count / size if size else 0.0 for count, size in pairs]
