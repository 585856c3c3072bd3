"""Base of methods that act in many decoder layers and have one budget: a mean over all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from stgridpool.compressor import Compressor
from stgridpool.equal_budget import Reference

RELEASED_DEPTH = 28
"""Layers of the models that the released codes of these methods are for."""


@dataclass(frozen=True)
class OverLayers(Compressor):
    """A method whose token counts per layer depend on the video, and only their mean over layers is set.

    Attributes:
        layer_average: Mean retention over all layers of the language model, above 0 and at most 1.
        depth: Layers of the language model, 1 to 1000; `for_depth` sets it.
    """

    without_budget: ClassVar[str] = (
        "the video decides what each layer holds, only their mean is set; ask for layer_average"
    )

    layer_average: float = 0.3
    depth: int = RELEASED_DEPTH

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Set `layer_average`; see `Compressor.at_retention`."""
        if of in ("layer_average", "kv_read"):
            return replace(self, layer_average=share)
        return super().at_retention(share, of, reference)

    def for_depth(self, num_layers: int) -> Self:
        """Set `depth`.

        Raises:
            ValueError: If the steps do not fit that depth, or need more tokens than the mean allows.
        """
        method = replace(self, depth=num_layers)
        method.steps()
        return method
