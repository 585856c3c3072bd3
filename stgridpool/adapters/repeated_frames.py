"""Frames of native models that equal an earlier one are not encoded again.

A unit is what a vision tower encodes without regard to the rest: a frame, or the frames that make a patch in time.
While a block runs, a hook on the tower leaves the units that equal an earlier one out of its input, and another gives
them the rows of that one in its output, so that everything behind the tower sees all units. Where rounding does not
depend on the size of the batch, the output is the same bit for bit. If no unit repeats, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stgridpool.distinct_frames import DistinctFrames

_GRID, _SIDES = "grid_thw", "merge_sizes"  # inputs of towers that take patches: an entry for each video


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one call of a tower.

    Attributes:
        sizes: Number of rows of each in the input of the tower.
        distinct: Which of them are equal.
    """

    sizes: tuple[int, ...]
    distinct: DistinctFrames

    def first_rows(self, values: Tensor) -> Tensor:
        """Return the rows (n, ...) of the units that equal no earlier one."""
        parts = values.split(self.sizes)
        return torch.cat([parts[unit] for unit in self.distinct.first])

    def every_row(self, values: Tensor) -> Tensor:
        """Give every unit the rows of the one that it equals; each has rows in proportion to its size."""
        sizes = [self.sizes[unit] for unit in self.distinct.first]
        parts = values.split([size * len(values) // sum(sizes) for size in sizes])
        return torch.cat([parts[number] for number in self.distinct.which])


class RepeatedFrames:
    """What a tower left out in a block of `encoded_once`, in which it runs once.

    Args:
        is_frame: Whether each unit is of a video; others are always encoded. None if all are.
    """

    def __init__(self, is_frame: Sequence[bool] | None = None) -> None:
        self._is_frame = is_frame
        self._units: Units | None = None

    def every_row(self, rows: Tensor) -> Tensor:
        """Turn rows (n, ...) of what the tower encoded into those of all units, in the same order."""
        return rows if self._units is None else self._units.every_row(rows)

    def of_visuals(self, counts: Sequence[int]) -> list[tuple[int, ...]]:
        """Return which units of each visual the tower left out, given how many units each has, in order."""
        reused = () if self._units is None else self._units.distinct.reused
        begins = [sum(counts[:number]) for number in range(len(counts))]
        return [
            tuple(unit - begin for unit in reused if begin <= unit < begin + count)
            for begin, count in zip(begins, counts, strict=True)
        ]

    def leave_out(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take the units that equal an earlier one from the inputs of the tower, of which the pixels are the first."""
        if self._units is not None:
            raise RuntimeError("the vision tower ran twice for one prompt: pass reuse_frames=False")
        named = _by_unit(kwargs)
        pixels: Tensor = args[0] if args else next(iter(kwargs.values()))
        grid = named.get(_GRID)
        sizes = [1] * len(pixels) if grid is None else grid.prod(1).tolist()
        kinds: list[Hashable] = [None] * len(pixels) if grid is None else list(map(tuple, grid.tolist()))
        if self._is_frame is not None and len(self._is_frame) != len(sizes):
            return None  # which units are frames is unknown
        if self._is_frame is not None:
            kinds = [kinds[unit] if is_frame else unit for unit, is_frame in enumerate(self._is_frame)]
        units = Units(tuple(sizes), DistinctFrames.of(pixels.split(sizes), kinds))
        has_one_side = _SIDES not in named or len(set(named[_SIDES].tolist())) == 1  # `every_row` relies on it
        self._units = units if units.distinct.num_reused and has_one_side else None
        if self._units is None:
            return None
        first = list(units.distinct.first)

        def shortened(value: Any) -> Any:
            if value is pixels:
                return units.first_rows(pixels)
            return value[first] if isinstance(value, Tensor) else value

        return tuple(map(shortened, args)), {name: shortened(value) for name, value in named.items()}

    def give_back(self, tower: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the output of the tower with the rows of all units."""
        return output if self._units is None else _mapped(output, self._units.every_row)


@contextmanager
def encoded_once(tower: nn.Module, is_frame: Sequence[bool] | None = None) -> Iterator[RepeatedFrames]:
    """Have a tower encode units that are equal once while a block runs; see `RepeatedFrames`."""
    repeated = RepeatedFrames(is_frame)
    before = tower.register_forward_pre_hook(repeated.leave_out, with_kwargs=True)
    behind = tower.register_forward_hook(repeated.give_back)
    try:
        yield repeated
    finally:
        before.remove()
        behind.remove()


def count_reused(units: Sequence[int], frames_per_unit: int, num_frames: int) -> int:
    """Count the frames of units of a video that were not encoded; those that fill up the last unit do not count."""
    return sum(min(frames_per_unit, num_frames - unit * frames_per_unit) for unit in units)


def _by_unit(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a tower with an entry for each unit in place of one for each video."""
    if _GRID not in kwargs:
        return dict(kwargs)
    times = kwargs[_GRID][:, 0]
    spread = {
        name: kwargs[name].repeat_interleave(times.to(kwargs[name].device), dim=0)
        for name in (_GRID, _SIDES)
        if name in kwargs
    }
    ones = spread[_GRID].new_ones(len(spread[_GRID]), 1)
    return {**kwargs, **spread, _GRID: torch.cat([ones, spread[_GRID][:, 1:]], dim=1)}


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the output of a module with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        kind: Callable[..., Any] = type(value)
        return kind(**{name: _mapped(one, change) for name, one in value.items()})
    if isinstance(value, tuple | list):
        return type(value)(_mapped(one, change) for one in value)
    return value
