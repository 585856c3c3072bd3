"""Budget: how many tokens a method keeps, and how they are shared among frames, segments and layers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from stgridpool.options import choice, fraction, whole_number
from stgridpool.plan import Shape

MOST_TOKENS = 1_000_000_000
"""Largest number of tokens that an option may name."""
_LOGGER = logging.getLogger(__name__)
_MOST_NAMED_FRAMES, _MOST_NAMED_RUNS = 64, 4


class BudgetError(ValueError):
    """A method cannot meet its budget on the tokens at hand, and could on others."""


@dataclass(frozen=True)
class Budget:
    """Number of tokens to keep, which is met exactly. At most one field is set; without any, the method decides.

    Attributes:
        ratio: Fraction of the tokens to keep, above 0 and at most 1; the count is rounded down, but is at least 1.
        tokens: Number of tokens to keep per video, 1 to 10^9.
        tokens_per_frame: Number of tokens to keep per frame, 1 to 10^9.
        rounding: How a ratio becomes a count: exactly and "down", or in float arithmetic, as released codes do: to the
            "nearest", halves to even, or "up", from the fraction to drop.

    Raises:
        ValueError: If two of the first three are set, or a field is of the wrong type or out of its range.
    """

    ratio: float | None = None
    tokens: int | None = None
    tokens_per_frame: int | None = None
    rounding: str = "down"

    def __post_init__(self) -> None:
        values = {"ratio": self.ratio, "tokens": self.tokens, "tokens_per_frame": self.tokens_per_frame}
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"a budget is given in one way, got {given}; leave out all but one")
        fraction("ratio", given.get("ratio", 1))
        whole_number("tokens", given.get("tokens", 1), 1, MOST_TOKENS)
        whole_number("tokens_per_frame", given.get("tokens_per_frame", 1), 1, MOST_TOKENS)
        choice("rounding", self.rounding, tuple(ROUNDINGS))

    def count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens to keep, at most `total`; None if the method decides.

        Args:
            shape: (T, H, W) of the lattice.
            total: Number of tokens on it; None if they fill it.
        """
        total = math.prod(shape) if total is None else total
        if self.ratio is not None:
            return max(1, ROUNDINGS[self.rounding](self.ratio, total))
        named = self.named(shape)
        return None if named is None else min(named, total)

    def named(self, shape: Shape) -> int | None:
        """Return the number of tokens that the budget names for a lattice, however few there are; None for others."""
        return self.tokens if self.tokens_per_frame is None else self.tokens_per_frame * shape[0]


@lru_cache(maxsize=1024)
def warn_of_large_budget(method: str) -> None:
    """Log, once for each method, that it keeps everything because its budget is larger.

    Args:
        method: The method with its options.
    """
    _LOGGER.warning("%s keeps all tokens that reach it: its budget is larger", method)


def frames_where(is_met: Callable[[int], bool]) -> str:
    """Say with how many frames, of 1 to 64, a budget can be met: "this budget works with 4, 7 to 9 frames".

    Args:
        is_met: Whether it can be met with that many frames.
    """
    works = [frames for frames in range(1, _MOST_NAMED_FRAMES + 1) if is_met(frames)]
    starts = [frames for frames in works if frames - 1 not in works]
    ends = [frames for frames in works if frames + 1 not in works]
    runs = [str(one) if one == other else f"{one} to {other}" for one, other in zip(starts, ends, strict=True)]
    if not runs:
        return f"this budget works with no number of frames up to {_MOST_NAMED_FRAMES}"
    named = [*runs[:_MOST_NAMED_RUNS], *(["..."] if len(runs) > _MOST_NAMED_RUNS else [])]
    return f"this budget works with {', '.join(named)} frames"


def exact_part(ratio: float, total: int) -> int:
    """Return ``ratio * total`` rounded down, for the ratio as it was written: 0.7 of 10780 is 7546, 1/3 of 9 is 3."""
    return int(Fraction(ratio).limit_denominator(10**9) * total)


ROUNDINGS: dict[str, Callable[[float, int], int]] = {
    "down": exact_part,
    "nearest": lambda ratio, total: round(ratio * total),
    "up": lambda ratio, total: math.ceil(total * (1 - round(1 - ratio, 12))),  # as written, 0.68 for 0.32
}
"""Counts for a ratio of a number of tokens, see `Budget`."""


def share_out(total: int, weight: Tensor, at_most: Tensor) -> Tensor:
    """Share out whole tokens in proportion to weights, by the largest remainder method.

    Tokens beyond the limit of one share go to the others, in proportion. The first of equal remainders is rounded up.
    If all shares below their limits have weight 0, they count the same.

    Args:
        total: Number of tokens to share out, 0 to the sum of `at_most`.
        weight: (K,), the weight of each share, 0 or more.
        at_most: (K,) int64, the limit of each share, 0 or more.

    Returns:
        (K,) int64, the shares, whose sum is `total`.

    Raises:
        ValueError: If `total` or a weight is out of its range.
    """
    share, ideal, is_open = _filled(total, weight, at_most)
    floor = ideal.floor().long()
    by_remainder = (ideal - floor).where(is_open, -1).argsort(descending=True, stable=True)
    floor[by_remainder[: total - int(share.sum() + floor.sum())]] += 1
    return share + floor


def share_equally(total: int, at_most: Tensor) -> Tensor:
    """Share out whole tokens equally, and spread the remainder evenly.

    Tokens beyond the limit of one share go to the others. Of the K shares below their limits, which get n tokens
    together, number i gets ``round((i + 1) * n / K) - round(i * n / K)``, halves rounded up: 7 tokens in three shares
    are 2, 3 and 2.

    Args:
        total: Number of tokens to share out, 0 to the sum of `at_most`.
        at_most: (K,) int64, the limit of each share, 0 or more.

    Returns:
        (K,) int64, the shares, whose sum is `total`.

    Raises:
        ValueError: If `total` is out of its range.
    """
    share, _, is_open = _filled(total, torch.ones(len(at_most)), at_most)
    rest, count = total - int(share.sum()), int(is_open.sum())
    edges = (2 * rest * torch.arange(count + 1) + count) // (2 * max(1, count))
    return share.masked_scatter(is_open, edges.diff())


def _filled(total: int, weight: Tensor, at_most: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the shares that would exceed their limits.

    Returns:
        (K,) int64, the limits of those that are full, else 0; (K,) float64, what the others ideally get, 0 for the full
        ones; (K,) bool, the others.

    Raises:
        ValueError: If `total` or a weight is out of its range.
    """
    weight, at_most = weight.double().cpu(), at_most.cpu()
    if not 0 <= total <= int(at_most.sum()):
        raise ValueError(f"the tokens to share out must number 0 to {int(at_most.sum())}, got {total}")
    if len(weight) and not 0 <= float(weight.min()) <= float(weight.max()) < math.inf:  # of NaN, both are NaN
        raise ValueError(f"weights must be finite and at least 0, got {weight.tolist()}")
    share = torch.zeros_like(at_most)
    is_open = at_most > 0
    while True:
        rest = total - int(share.sum())
        open_weight = weight.where(is_open, 0)
        if not float(whole := open_weight.sum()) > 0:
            open_weight = is_open.double()
            whole = open_weight.sum()
        ideal = rest * open_weight / whole.clamp_min(1e-300)
        is_full = is_open & (ideal >= at_most)
        if not bool(is_full.any()):
            return share, ideal, is_open
        share, is_open = at_most.where(is_full, share), is_open & ~is_full


def split_layer_average(average: float, lengths: Sequence[int], shares: Sequence[float | None]) -> tuple[float, ...]:
    """Split a mean retention over the layers of a decoder into the retention of each segment of layers.

    Segments whose share is a number get retentions in proportion to their shares. No retention exceeds 1; where one
    would, the excess goes to the others. FastV at layer K of L is ``lengths=(K, L - K), shares=(None, 1)``, PyramidDrop
    ``shares=(None, 0.5, 0.25, 0.125)``, and FlashVID, which also compresses before layer 0, ``shares=(1, 0.3)``.

    Args:
        average: Mean over all layers, above 0 and at most 1.
        lengths: Number of layers in each segment, at least one of them above 0.
        shares: The relative retention of each segment, above 0, or None if it keeps everything.

    Returns:
        The retention of each segment, above 0 and at most 1.

    Raises:
        ValueError: If the segments that keep everything alone exceed `average`, or an argument is out of its range.
    """
    _check_segments(average, lengths, shares)
    fixed = sum(length for length, share in zip(lengths, shares, strict=True) if share is None)
    found: dict[int, float] = {index: 1.0 for index, share in enumerate(shares) if share is None}
    rest = average * sum(lengths) - fixed
    if rest < 0 or (rest == 0 and average < 1):
        least = fixed / sum(lengths)
        raise ValueError(
            f"{fixed} of {sum(lengths)} layers keep all tokens, so the mean over layers must be above {least:.4g}, got "
            f"{average}: raise it or compress earlier"
        )
    scaled = {index: share for index, share in enumerate(shares) if share is not None}
    while scaled:
        weight = sum(lengths[index] * share for index, share in scaled.items())
        scale = rest / weight if weight else math.inf  # segments without layers have no limit
        full = [index for index, share in scaled.items() if scale * share >= 1]
        if not full:
            found |= {index: scale * share for index, share in scaled.items()}
            break
        for index in full:
            found[index] = 1.0
            rest -= lengths[index]
            del scaled[index]
    return tuple(found[index] for index in range(len(lengths)))


def _check_segments(average: float, lengths: Sequence[int], shares: Sequence[float | None]) -> None:
    fraction("average", average)
    if len(lengths) != len(shares):
        raise ValueError(f"there must be one share per segment, got {len(shares)} for {len(lengths)} segments")
    if min(lengths, default=0) < 0 or sum(lengths) == 0:
        raise ValueError(f"lengths must be 0 or more, at least one of them above 0, got {tuple(lengths)}")
    if not all(share is None or 0 < share < math.inf for share in shares):
        raise ValueError(f"shares must be finite numbers above 0, or None, got {tuple(shares)}")
