"""Rows: a sparse matrix in compressed row format, and how its rows are drawn from tables of features.

Drawing uses `torch.nn.functional.embedding_bag`, or our own kernel on a GPU; both read the sources directly, without
an intermediate tensor. Several tables share one address space: the rows of the second follow those of the first, and
so on.

Letters: M entries, R rows, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool import kernels


@dataclass(frozen=True, eq=False)
class Part:
    """The entries of `Rows` that draw from one of several tables.

    Attributes:
        sources: (m,) int64, the row of that table.
        entries: (m,) int64, the positions of these entries among all M.
        offsets: (r + 1,) int64, as in `Rows`.
        targets: (r,) int64, the row to which each run of entries is added, ascending without repeats; None for all R
            rows in order.
        is_first: Whether no earlier table adds to these rows.
    """

    sources: Tensor
    entries: Tensor
    offsets: Tensor
    targets: Tensor | None
    is_first: bool


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a sparse matrix: row i owns the entries from ``offsets[i]`` up to ``offsets[i + 1]``.

    Attributes:
        sources: (M,) int64, the address from which each entry draws.
        offsets: (R + 1,) int64, ascending from 0 to M. Equal neighbours make an empty row, which draws zeros.
        weights: (M,) float32, the factor of each entry.
        parts: The entries by table, if they have been divided; see `divided`.
        selects: Whether every row has one entry of weight 1, so that drawing is selecting.
        is_identity: Whether row i selects address i, for all addresses, so that drawing does nothing.
    """

    sources: Tensor
    offsets: Tensor
    weights: Tensor
    parts: tuple[Part, ...] | None = None
    selects: bool = False
    is_identity: bool = False

    @classmethod
    def of(cls, index: Tensor) -> Rows:
        """Make rows that select the addresses `index` (R,)."""
        order = torch.arange(len(index) + 1, device=index.device)
        return cls(index, order, torch.ones(len(index), device=index.device), selects=True)

    @classmethod
    def of_entries(cls, row: Tensor, sources: Tensor, weights: Tensor, count: int) -> Rows:
        """Rows of single entries in any order; those of a row stay in theirs.

        Args:
            row: (M,) int64, the row that each entry belongs to.
            sources: (M,) int64, the address that each entry draws from.
            weights: (M,) float32.
            count: Number of rows; one without entries draws zeros.
        """
        row, order = row.sort(stable=True)
        offsets = torch.searchsorted(row, torch.arange(count + 1, device=row.device))
        return cls(sources[order], offsets, weights[order])

    @classmethod
    def identity(cls, count: int, device: torch.device) -> Rows:
        """Make rows that select each of `count` addresses once, in order; drawing them copies nothing."""
        return replace(cls.of(torch.arange(count, device=device)), is_identity=True)

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    def weighted(self, weights: Tensor) -> Rows:
        """Return the same rows with `weights` (M,)."""
        return Rows(self.sources, self.offsets, weights, self.parts)

    def draw(self, tables: Sequence[Tensor]) -> Tensor:
        """Draw weighted sums of rows of the tables, (R, D), in their dtype.

        Args:
            tables: (S_i, D) each, at least one, in the order of their addresses.
        """
        if len(tables) == 1:
            if self.is_identity:
                return tables[0]
            if self.selects:
                return tables[0].index_select(0, self.sources)
            return _weighted_sums(tables[0], self.sources, self.offsets, self.weights)
        parts = self.parts or self.divided([len(table) for table in tables]).parts or ()
        drawn: Tensor | None = None
        for part, table in zip(parts, tables, strict=True):
            if not part.sources.numel():
                continue
            weights = self.weights[part.entries]
            if drawn is None:
                drawn = _weighted_sums(table, part.sources, part.offsets, weights)
                if part.targets is not None and len(drawn) < len(self):
                    drawn = table.new_zeros(len(self), table.shape[1]).index_copy_(0, part.targets, drawn)
            else:
                drawn = _add_weighted_sums(drawn, part, table, weights)
        return tables[0].new_zeros(len(self), tables[0].shape[1]) if drawn is None else drawn

    def divided(self, sizes: Sequence[int]) -> Rows:
        """Divide the entries by the table from which they draw, in advance of `draw`.

        Args:
            sizes: Number of rows of each table.
        """
        ends = list(accumulate(sizes))
        table = torch.bucketize(self.sources, torch.tensor(ends, device=self.sources.device), right=True)
        row = self.row_of_entry()
        is_fed = torch.zeros(len(self), dtype=torch.bool, device=row.device)
        parts = []
        for index, (size, end) in enumerate(zip(sizes, ends, strict=True)):
            entries = (table == index).nonzero().flatten()
            counts = torch.bincount(row[entries], minlength=len(self))
            targets = counts.nonzero().flatten() if index else None
            offsets = F.pad((counts if targets is None else counts[targets]).cumsum(0), (1, 0))
            is_first = not bool(is_fed[row[entries]].any())
            is_fed[row[entries]] = True
            parts.append(Part(self.sources[entries] - (end - size), entries, offsets, targets, is_first))
        return replace(self, parts=tuple(parts))

    def take(self, index: Tensor) -> Rows:
        """Take the rows `index` (R',) of this matrix, in that order; repeats are allowed."""
        if self.selects:
            return Rows.of(self.sources[index])
        counts = self.offsets.diff()[index]
        offsets = F.pad(counts.cumsum(0), (1, 0))
        shift = torch.repeat_interleave(self.offsets[:-1][index] - offsets[:-1], counts)
        entries = torch.arange(shift.numel(), device=shift.device) + shift
        return Rows(self.sources[entries], offsets, self.weights[entries])

    def row_of_entry(self) -> Tensor:
        """Return the row of each entry, (M,) int64."""
        rows = torch.arange(len(self), device=self.offsets.device)
        return torch.repeat_interleave(rows, self.offsets.diff(), output_size=self.sources.numel())

    def moved(self, addresses: Tensor) -> Rows:
        """Return the same rows with `addresses` (M,) as their sources."""
        return Rows(addresses, self.offsets, self.weights, selects=self.selects)

    def times(self, inner: Rows) -> Rows:
        """Multiply this matrix by `inner`, whose rows it addresses; a source that occurs twice keeps two entries."""
        taken = inner.take(self.sources)
        if self.selects:
            return taken
        weights = taken.weights * self.weights[taken.row_of_entry()]
        return Rows(taken.sources, taken.offsets[self.offsets], weights)


def stacked(rows: Sequence[Rows]) -> Rows:
    """Stack at least one matrix over the same addresses."""
    starts = list(accumulate((one.sources.numel() for one in rows), initial=0))
    offsets = [one.offsets[1:] + start for one, start in zip(rows, starts, strict=False)]
    return Rows(
        torch.cat([one.sources for one in rows]),
        torch.cat([rows[0].offsets[:1], *offsets]),
        torch.cat([one.weights for one in rows]),
        selects=all(one.selects for one in rows),
    )


def sums_of_groups(values: Tensor, group: Tensor, count: int, weights: Tensor | None = None) -> Tensor:
    """Sum the rows of each group, (count, D) in their dtype, in their order also on a GPU; zeros of an empty group.

    Args:
        values: (N, D).
        group: (N,) int64, 0 to count - 1.
        count: Number of groups.
        weights: (N,) float32, a factor of each row, or None.
    """
    weights = torch.ones(len(values), device=values.device) if weights is None else weights
    rows = Rows.of_entries(group, torch.arange(len(values), device=values.device), weights, count)
    return rows.draw([values])


def _weighted_sums(table: Tensor, sources: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    if kernels.can_run(table, weights):
        from stgridpool.kernels.weighted_gather import weighted_gather  # noqa: PLC0415  # triton may be missing

        return weighted_gather(table, sources, offsets, weights)
    return F.embedding_bag(
        sources, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype), include_last_offset=True
    )


def _add_weighted_sums(onto: Tensor, part: Part, table: Tensor, weights: Tensor) -> Tensor:
    """Draw `part` from `table`, and add the sums to its rows of `onto` (R, D) in place."""
    if part.targets is None:
        return onto.add_(_weighted_sums(table, part.sources, part.offsets, weights))
    if kernels.can_run(table, weights, onto):
        from stgridpool.kernels.weighted_gather import weighted_gather  # noqa: PLC0415  # triton may be missing

        return weighted_gather(table, part.sources, part.offsets, weights, onto, part.targets)
    sums = _weighted_sums(table, part.sources, part.offsets, weights)
    if not part.is_first:  # index_add_ does not know that rows are unique, and takes several times as long
        sums += onto.index_select(0, part.targets)
    return onto.index_copy_(0, part.targets, sums)
