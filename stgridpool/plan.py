"""Plan: the sparse matrix that a compression method decides on, and the one way to apply it.

Once their decisions are made, pooling, gridding, pruning and merging are all ``out = P x`` with a sparse P. A method
only decides P; `Plan.apply` multiplies.

Some methods draw many output tokens from a few costly rows, such as the mosaics of temporal gridding. A plan may
therefore *make* rows first, level by level. Input tokens and made rows share one address space: addresses below
``num_sources`` are input tokens, and the rows of each level follow those of the level before.

Letters: S source tokens, N output tokens, D width; T frames of H x W tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.device_transfer import to_device
from stgridpool.made_rows import MadeTables, made_sizes, make
from stgridpool.plan_file import plan_fields, save_plan
from stgridpool.rows import Rows, stacked

__all__ = ["MadeTables", "MergedTokensError", "Plan", "Shape", "made_sizes", "make", "to_device"]

Shape = tuple[int, int, int]
"""(T, H, W) of a lattice of tokens: frames, rows, columns."""


class MergedTokensError(ValueError):
    """A plan merges tokens where only a selection of them can be used."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The decision of a method: the sources of each output token, their weights, and the place of the token.

    Attributes:
        rows: N rows over input tokens and made rows.
        num_sources: Number S of source tokens.
        anchor: (N,) int64, the source token whose place each output token takes, in any order; repeats are allowed.
        made: Rows that are computed first, level by level, each over the input and the levels before it.
        shape: (T', H', W') if the output fills a lattice in row-major order, else None.
        reproduces: False if the rows list the source tokens but do not determine the values (max pooling).
        known: The made rows of the tokens that the plan is for, if the method computed them to decide; they are kept
            only until the plan has been applied.
    """

    rows: Rows
    num_sources: int
    anchor: Tensor
    made: tuple[Rows, ...] = ()
    shape: Shape | None = None
    reproduces: bool = True
    known: MadeTables | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def keep(cls, index: Tensor, num_sources: int, shape: Shape | None = None) -> Plan:
        """Make a plan that keeps some tokens, in the order given: the plan of every pruner.

        Args:
            index: (N,) int64, the tokens to keep.
            num_sources: Number S of source tokens.
            shape: The lattice that the kept tokens fill, or None.
        """
        return cls(Rows.of(index), num_sources, index, shape=shape)

    @classmethod
    def keep_all(cls, num_sources: int, device: torch.device, shape: Shape | None = None) -> Plan:
        """Make a plan that keeps every token in its place; applying it copies nothing. See `keep`."""
        rows = Rows.identity(num_sources, device)
        return cls(rows, num_sources, rows.sources, shape=shape)

    @classmethod
    def merge(cls, group: Tensor, anchor: Tensor, weight: Tensor | None = None, drops: bool = True) -> Plan:
        """Make a plan that merges groups of tokens: the plan of every merger.

        Args:
            group: (S,) int64, the output token into which each source token is merged, or -1 to drop it.
            anchor: (N,) int64, see `Plan`.
            weight: (S,) float32, the factor of each source token; None for the mean of each group.
            drops: Pass False if no group is -1; finding out would mean waiting for the device.
        """
        counts = torch.zeros(len(anchor) + 1, dtype=torch.int64, device=group.device)
        counts = counts.scatter_add(0, group + 1, torch.ones_like(group))
        order = group.argsort(stable=True)
        sources = order[len(order) - int(counts[1:].sum()) :] if drops and bool(counts[0]) else order
        weights = (1 / counts)[group + 1] if weight is None else weight
        offsets = F.pad(counts[1:].cumsum(0), (1, 0))
        return cls(Rows(sources, offsets, weights[sources].float()), len(group), anchor)

    @classmethod
    def concat(cls, plans: Sequence[Plan]) -> Plan:
        """Concatenate the outputs of `plans` for the same tokens, such as slow and fast pathways.

        Raises:
            ValueError: If there is no plan, or the plans are for different numbers of tokens.
        """
        counts = {plan.num_sources for plan in plans}
        if len(counts) != 1:
            raise ValueError(f"plans to concatenate must be for the same tokens, got plans for {sorted(counts)} tokens")
        num_sources, shift = counts.pop(), 0
        rows, made = [], []
        for plan in plans:
            shifted = [_shifted(one, num_sources, shift) for one in (*plan.made, plan.rows)]
            made += shifted[:-1]
            rows.append(shifted[-1])
            shift += sum(map(len, plan.made))
        anchor = torch.cat([plan.anchor for plan in plans])
        return cls(stacked(rows), num_sources, anchor, tuple(made), None, all(plan.reproduces for plan in plans))

    def apply(self, tokens: Tensor) -> Tensor:
        """Multiply (S, D) or (T, H, W, D) `tokens` by the matrix: (N, D) in their dtype; they are not changed.

        Any tensor with a row per source token will do: features of another encoder level, or positions to average.

        Raises:
            ValueError: If `tokens` does not have one row per source token, or the plan does not reproduce values.
        """
        if not self.reproduces:
            raise ValueError("this plan does not determine the values of its output: call the compressor instead")
        return self._draw(tokens)

    def mean(self, values: Tensor) -> Tensor:
        """Average `values` (S, d) of the source tokens over the sources of each output token: (N, d).

        The average is weighted in proportion to the plan's weights. It works for every plan and for any values that
        belong to tokens, such as attention.

        Raises:
            ValueError: If `values` does not have one row per source token.
        """
        sums = self._draw(values.new_ones(self.num_sources, 1))
        return self._draw(values) / sums.where(sums != 0, 1)

    def weighted(self, weights: Tensor) -> Plan:
        """Return the same plan with `weights` (M,) float32 in the entries of its rows."""
        return replace(self, rows=self.rows.weighted(weights))

    def then(self, following: Plan) -> Plan:
        """Compose this plan with `following`, which is for the output of this one.

        The made rows of this plan are kept; those of `following` are flattened into its weights.

        Raises:
            ValueError: If `following` is for another number of tokens.
        """
        if following.num_sources != len(self):
            raise ValueError(
                f"the second plan is for {following.num_sources} tokens, but the first one outputs {len(self)}; make "
                "the second plan for the output of the first"
            )
        return replace(
            self,
            rows=following.flatten().rows.times(self.rows),
            anchor=self.anchor[following.anchor],
            shape=following.shape,
            reproduces=self.reproduces and following.reproduces,
            known=None,
        )

    def flatten(self) -> Plan:
        """Return the same matrix without made rows, so that every row draws from source tokens only.

        The result is for pictures and for composing plans: applying it takes several times as long.
        """
        if not self.made:
            return self
        known = Rows.of(torch.arange(self.num_sources, device=self.rows.sources.device))
        for level in self.made:
            known = stacked([known, level.times(known)])
        return replace(self, rows=self.rows.times(known), made=(), known=None)

    def kept(self) -> Tensor:
        """Return the indices (N,) of the kept tokens, which are all that serving engines need from a pruner.

        Raises:
            MergedTokensError: If the plan does not only select: a row has several sources or a weight other than 1.
        """
        flat = self.flatten().rows
        if flat.selects:
            return flat.sources
        selects = len(flat.sources) == len(self) and bool((flat.offsets.diff() == 1).all())
        if not selects or not bool((flat.weights == 1).all()):
            raise MergedTokensError("this plan merges tokens: no list of kept tokens can represent it")
        return flat.sources

    def sizes(self) -> Tensor:
        """Count the source tokens of each output token, (N,) int64; a token that is drawn twice counts once."""
        flat = self.flatten().rows
        pairs = (flat.row_of_entry() * self.num_sources + flat.sources).unique()
        return torch.bincount(pairs // self.num_sources, minlength=len(self))

    def to(self, device: torch.device | str) -> Plan:
        """Return the same plan with its tensors on `device`."""
        return to_device(self, torch.device(device))

    def save(self, path: str | Path) -> None:
        """Write the plan to a safetensors file."""
        save_plan(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that `save` wrote.

        Raises:
            OSError: If there is no such file.
            ValueError: If the file does not contain a plan.
        """
        return cls(**plan_fields(path))

    def _draw(self, tokens: Tensor) -> Tensor:
        table = self._table(tokens)
        known = self.known
        made = make(table, self.made) if known is None or known.tokens is not table else known.tables
        return self.rows.draw([table, *made])

    def _table(self, tokens: Tensor) -> Tensor:
        if tokens.dim() in (2, 4) and math.prod(tokens.shape[:-1]) == self.num_sources:
            return tokens if tokens.dim() == 2 else tokens.reshape(self.num_sources, tokens.shape[-1])
        raise ValueError(
            f"this plan is for {self.num_sources} tokens, (S, D) or (T, H, W, D), got a tensor of {tuple(tokens.shape)}"
        )


def _shifted(rows: Rows, num_sources: int, shift: int) -> Rows:
    """Add `shift` to the addresses of made rows."""
    return rows.moved(torch.where(rows.sources < num_sources, rows.sources, rows.sources + shift))
