"""Two compressors, one after the other: in front of the language model, and inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stgridpool.compressor import Budget, Compressed, Compressor
from stgridpool.plan import Grid, Plan


@dataclass(frozen=True, repr=False)
class Composed(Compressor):
    """A compressor in front of the language model, and another one at a decoder layer, on what the first one left.

    Called by itself, it is what both would do at layer 0.

    Attributes:
        front: Acts in front of the language model, and leaves whole grids.
        inside: Acts inside it.

    Raises:
        ValueError: if one of the two acts elsewhere.
    """

    front: Compressor
    inside: Compressor

    def __post_init__(self) -> None:
        if self.front.stage != "before_llm" or self.inside.stage == "before_llm":
            raise ValueError(
                f"{self!r} must name a method in front of the language model and one inside it, in this order, got "
                f"stages {self.front.stage!r} and {self.inside.stage!r}"
            )

    def __repr__(self) -> str:
        return f"{self.front!r} + {self.inside!r}"

    @property
    def stage(self) -> str | int:
        """That of the method inside."""
        return self.inside.stage

    @property
    def query_aware(self) -> bool:
        """Whether one of them looks at the question."""
        return self.front.query_aware or self.inside.query_aware

    @property
    def needs(self) -> frozenset[str]:
        """What either needs."""
        return self.front.needs | self.inside.needs

    @property
    def budget(self) -> Budget:
        """That of the method inside, of what the first one left."""
        return self.inside.budget

    def llm_options(self) -> dict[str, Any]:
        """Those of the method inside."""
        return self.inside.llm_options()

    def plan(self, tokens: Tensor) -> Plan:
        """See `Compressor.plan`.

        Raises:
            ValueError: also if the first method does not leave a whole grid.
        """
        pooled, first = self.front(tokens)
        return first.then(self.inside.plan(pooled.unflatten(0, first.shape)))

    def compress(self, tokens: Tensor) -> Compressed:
        """Return what the second method makes of the tokens of the first one, which its plan may not reproduce.

        Raises:
            ValueError: see `plan`.
        """
        pooled, first = self.front(tokens)
        merged, second = self.inside(pooled.unflatten(0, first.shape))
        return Compressed(merged, first.then(second))

    def planned_count(self, grid: Grid) -> int | None:
        """See `Compressor.planned_count`."""
        shape = self.front.planned_shape(grid)
        return None if shape is None else self.inside.planned_count(shape)
