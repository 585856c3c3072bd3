"""Plan: the sparse matrix that a compression method decides on, and the one way to apply it.

Pooling, gridding, pruning and merging are all ``out = P x`` with a sparse P once their decisions are made. A method
only decides P; `Plan.apply` multiplies. P is kept in compressed rows and applied with
`torch.nn.functional.embedding_bag`, or on a GPU with a kernel of ours; both read the sources and make no intermediate.

Some methods draw many output rows from a few costly rows, such as the mosaics of temporal gridding. A plan may
therefore first make *extra rows* (`ExtraStep`), and add draws from them (`Patch`) to the draws from the input.

Letters: T frames, H x W tokens a frame, D width, S = T*H*W source rows, N output tokens, E extra rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool import kernels

_Value = TypeVar("_Value")
Grid = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a sparse matrix, compressed: row i owns the entries from ``offsets[i]`` up to ``offsets[i + 1]``.

    Attributes:
        sources: (M,) int64, the table row that each entry draws from.
        offsets: (R + 1,) int64, ascending from 0 to M. Equal neighbours make an empty row, which draws zeros.
        weights: (M,) float32, the factor of each entry.
    """

    sources: Tensor
    offsets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    def draw(self, table: Tensor) -> Tensor:
        """Weighted sums of rows of `table` (S, D), in its dtype: (R, D)."""
        if kernels.can_run(table, self.weights):
            return self._gather(table)
        weights = self.weights.to(table.dtype)
        return F.embedding_bag(
            self.sources, table, self.offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    def take(self, index: Tensor) -> Rows:
        """Rows ``index`` (R',) of this matrix, in that order and as often as they are named there."""
        counts = self.offsets.diff()[index]
        offsets = F.pad(counts.cumsum(0), (1, 0))
        shift = torch.repeat_interleave(self.offsets[:-1][index] - offsets[:-1], counts)
        entries = torch.arange(shift.numel(), device=shift.device) + shift
        return Rows(self.sources[entries], offsets, self.weights[entries])

    def add_draws(self, onto: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """Add ``draw(table)`` to the rows `targets` (R,) of `onto` (R', D), in place; none of them comes twice."""
        if kernels.can_run(table, self.weights, onto):
            return self._gather(table, onto, targets)
        return onto.index_add_(0, targets, self.draw(table))

    def _gather(self, table: Tensor, onto: Tensor | None = None, targets: Tensor | None = None) -> Tensor:
        from stgridpool.kernels.weighted_gather import weighted_gather  # noqa: PLC0415  # triton may be missing

        return weighted_gather(table, self.sources, self.offsets, self.weights, onto, targets)

    def row_of_entry(self) -> Tensor:
        """The row that each entry belongs to, (M,) int64."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.offsets.device), self.offsets.diff())


@dataclass(frozen=True, eq=False)
class Patch:
    """Draws from the extra rows, to be added to some of the rows that were drawn from the input.

    Attributes:
        targets: (R,) int64, the drawn row that each row of `rows` is added to, ascending, none twice.
        rows: R rows over the extra rows.
    """

    targets: Tensor
    rows: Rows


@dataclass(frozen=True, eq=False)
class ExtraStep:
    """Extra rows that are made together, from the input and from what earlier steps made.

    Attributes:
        slots: (R,) int64, the extra rows to write, ascending; what an earlier step wrote there is replaced.
        rows: R rows over the input.
        patch: draws from the extra rows as the earlier steps left them, or None.
    """

    slots: Tensor
    rows: Rows
    patch: Patch | None = None


@dataclass(frozen=True, eq=False)
class Plan(Rows):
    """What a method decided: for each output token its sources, their weights, and its place.

    Attributes:
        sources: (M,) int64, source tokens counted in row-major (frame, row, column) order.
        offsets: (N + 1,) int64, see `Rows`.
        weights: (M,) float32.
        place: (N, 3) int64, frame, row and column of each output token on the lattice `shape`, ascending.
        grid: (T, H, W) of the source tokens.
        shape: (T', H', W') of the lattice that the output tokens stand on: the pooled size where every frame is
            pooled alike, the source grid where tokens are pruned or merged.
        num_extra: E, the number of extra rows.
        steps: how the extra rows are made, in order; between them they write every extra row.
        patch: draws from the extra rows, added to those from the input, or None.
    """

    place: Tensor
    grid: Grid
    shape: Grid
    num_extra: int = 0
    steps: tuple[ExtraStep, ...] = ()
    patch: Patch | None = None

    @property
    def num_sources(self) -> int:
        """S, the number of source tokens."""
        return math.prod(self.grid)

    def apply(self, tokens: Tensor, extra: Tensor | None = None) -> Tensor:
        """Multiply: (T, H, W, D) or (S, D) to (N, D), in the dtype of `tokens`, which is left as it is.

        Any tensor with a row per source token will do: features of another encoder level, or positions to average.

        Args:
            tokens: the source rows.
            extra: (E, D), what `make_extra` gave for the same tokens; made here if not given.

        Raises:
            ValueError: if `tokens` does not have one row per source token.
        """
        table = self._table(tokens)
        if extra is None:
            extra = make_extra(table, self.steps, self.num_extra)
        return _draw(self, table, self.patch, extra)

    def then(self, following: Plan) -> Plan:
        """One plan for this plan and then `following`, whose source grid is this plan's whole lattice.

        The extra rows of this plan are kept; those of `following` are flattened into its weights.

        Raises:
            ValueError: if `following` is for another grid, or this plan does not fill its lattice.
        """
        if following.grid != self.shape or following.num_sources != len(self):
            raise ValueError(
                f"the second plan is for a grid of {following.grid}, but the first one gives {len(self)} tokens on a "
                f"lattice of {self.shape}; make the second plan for the full output of the first"
            )
        outer = following.flatten()
        patch = None
        if self.patch is not None:
            patch = _patch(_product(outer, _spread(self.patch, len(self))))
        return replace(self, **vars(_product(outer, self)), place=following.place, shape=following.shape, patch=patch)

    def flatten(self) -> Plan:
        """The same matrix without extra rows: every output token in terms of source tokens.

        For pictures and for composing: applying the result costs several times what applying this plan costs.
        """
        if self.patch is None:
            return replace(self, num_extra=0, steps=())
        extra = _empty(self.num_extra, self)
        for step in self.steps:
            made = step.rows
            if step.patch is not None:
                made = _sum(made, _product(_spread(step.patch, len(made)), extra))
            order = torch.arange(self.num_extra, device=self.sources.device)
            written = torch.arange(len(made), device=self.sources.device) + self.num_extra
            extra = _stacked(extra, made).take(order.index_copy(0, step.slots, written))
        rows = _sum(self, _product(_spread(self.patch, len(self)), extra))
        return replace(self, **vars(rows), num_extra=0, steps=(), patch=None)

    def to(self, device: torch.device | str) -> Plan:
        """The same plan with its tensors on `device`."""
        return to_device(self, torch.device(device))

    def _table(self, tokens: Tensor) -> Tensor:
        if tokens.dim() == 4 and tuple(tokens.shape[:3]) == self.grid:
            return tokens.reshape(self.num_sources, tokens.shape[3])
        if tokens.dim() == 2 and tokens.shape[0] == self.num_sources:
            return tokens
        frames, height, width = self.grid
        raise ValueError(
            f"this plan is for tokens of shape ({frames}, {height}, {width}, D) or ({self.num_sources}, D), "
            f"got {tuple(tokens.shape)}"
        )


def make_extra(table: Tensor, steps: tuple[ExtraStep, ...], num_extra: int) -> Tensor:
    """Carry out `steps` on the source rows `table` (S, D): the extra rows (E, D), in the dtype of `table`."""
    extra = table.new_empty(num_extra, table.shape[1])
    for step in steps:
        made = _draw(step.rows, table, step.patch, extra)
        writes_all = made.shape[0] == num_extra
        extra = made if writes_all else extra.index_copy_(0, step.slots, made)
    return extra


def _draw(rows: Rows, table: Tensor, patch: Patch | None, extra: Tensor) -> Tensor:
    """The draws of `rows` from `table` plus those of `patch` from `extra`: (R, D)."""
    if patch is None:
        return rows.draw(table)
    if rows.sources.numel() == 0 and len(patch.rows) == len(rows):
        return patch.rows.draw(extra)  # targets ascend and none comes twice, so these are all rows in order
    return patch.rows.add_draws(rows.draw(table), patch.targets, extra)


def _product(outer: Rows, inner: Rows) -> Rows:
    """``outer x inner``; a source that a row meets twice keeps two entries."""
    taken = inner.take(outer.sources)
    weights = taken.weights * outer.weights[taken.row_of_entry()]
    return Rows(taken.sources, taken.offsets[outer.offsets], weights)


def _stacked(upper: Rows, lower: Rows) -> Rows:
    """The rows of `upper`, then those of `lower`."""
    return Rows(
        torch.cat([upper.sources, lower.sources]),
        torch.cat([upper.offsets, lower.offsets[1:] + upper.offsets[-1]]),
        torch.cat([upper.weights, lower.weights]),
    )


def _sum(first: Rows, second: Rows) -> Rows:
    """Row by row, the entries of both."""
    order = torch.arange(len(first), device=first.offsets.device)
    paired = _stacked(first, second).take(torch.stack([order, order + len(first)], dim=1).flatten())
    return Rows(paired.sources, paired.offsets[::2], paired.weights)


def _empty(num_rows: int, like: Rows) -> Rows:
    return Rows(like.sources[:0], like.offsets.new_zeros(num_rows + 1), like.weights[:0])


def _spread(patch: Patch, num_rows: int) -> Rows:
    """All `num_rows` rows that `patch` is added to; those that it leaves alone are empty."""
    padded = _stacked(patch.rows, _empty(1, patch.rows))
    index = patch.targets.new_full((num_rows,), len(patch.rows))
    return padded.take(index.index_copy(0, patch.targets, torch.arange(len(patch.rows), device=index.device)))


def _patch(rows: Rows) -> Patch:
    """The rows that are not empty, as a patch."""
    targets = rows.offsets.diff().nonzero().flatten()
    return Patch(targets, rows.take(targets))


def to_device(value: _Value, device: torch.device) -> _Value:
    """`value` with every tensor in it on `device`; it is a tensor, or a tuple or dataclass of such."""
    return _moved(value, device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        # Nothing waits for a copy to the device. One back must be waited for: the CPU would read before it is there.
        return value.to(device, non_blocking=device.type != "cpu")
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value
