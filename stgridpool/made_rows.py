"""Made rows: the rows of a plan that are computed before its output, level by level.

Letters: S source tokens, E_l rows of level l, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stgridpool.rows import Rows


@dataclass(frozen=True, eq=False)
class MadeTables:
    """The values of made rows.

    Attributes:
        tokens: (S, D), the tokens from which they were made.
        tables: The rows of each level, (E_l, D).
    """

    tokens: Tensor
    tables: tuple[Tensor, ...]


def make(tokens: Tensor, levels: Sequence[Rows]) -> list[Tensor]:
    """Compute made rows, level by level: (E_l, D) each, in the dtype of `tokens` (S, D)."""
    tables = [tokens]
    for level in levels:
        tables.append(level.draw(tables))
    return tables[1:]


def made_sizes(num_sources: int, levels: Sequence[Rows]) -> list[int]:
    """Return the sizes of all tables of a plan's address space: the input and each level."""
    return [num_sources, *map(len, levels)]
