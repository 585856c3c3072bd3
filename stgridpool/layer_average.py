"""Base of methods that act in many decoder layers and have one budget: a mean over all of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from stgridpool.compressor import Compressor, Step
from stgridpool.equal_budget import Reference
from stgridpool.options import choice, fraction, whole_number

RELEASED_DEPTH = 28
"""Layers of the models that the released codes of these methods are for; they assume as many in any model."""

MEANS = ("layer_average", "kv_read")
"""Definitions of retention that are a mean over all layers."""


@dataclass(frozen=True)
class OverLayers(Compressor):
    """A method whose token counts per layer depend on the video, and only their mean over layers is set.

    Attributes:
        PRESETS: Values of `preset`; class attribute.
        released_miss: Why ``released`` may miss the mean over as many layers as it assumes; class attribute.
        layer_average: Mean retention over all layers of the language model, above 0 and at most 1.
        depth: Layers of the language model, 1 to 1000; `for_depth` sets it.
        preset: "corrected", or "released" for what the released code does.

    Raises:
        ValueError: If an option is out of its range.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released")
    released_miss: ClassVar[str] = "rounds"

    without_budget: ClassVar[str] = (
        "the video decides what each layer holds, only their mean is set; ask for layer_average"
    )

    layer_average: float = 0.3
    depth: int = RELEASED_DEPTH
    preset: str = "corrected"

    def __post_init__(self) -> None:
        fraction("layer_average", self.layer_average)
        whole_number("depth", self.depth, 1, 1000)
        choice("preset", self.preset, self.PRESETS)

    @property
    def reckoned_depth(self) -> int:
        """Layers over which the mean is taken; the released codes assume 28, whatever the model."""
        return RELEASED_DEPTH if self.preset == "released" else self.depth

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Set `layer_average`; see `Compressor.at_retention`."""
        if of in MEANS:
            return replace(self, layer_average=share)
        return super().at_retention(share, of, reference)

    @abstractmethod
    def acting(self) -> tuple[Step, ...]:
        """Return the steps, whatever the mean allows."""

    @abstractmethod
    def check_average(self) -> None:
        """Check that the mean is enough for the steps.

        Raises:
            ValueError: If layers that hold everything alone exceed it.
        """

    def steps(self) -> tuple[Step, ...]:
        """Return the steps before decoder layers; see `check_average`, which may refuse."""
        self.check_average()
        return self.acting()

    def for_depth(self, num_layers: int) -> Self:
        """Set `depth`; `steps` checks whether the mean is enough for it, since the mean may still be changed."""
        return replace(self, depth=num_layers)


def released_ratio(dropped: Sequence[float], total: float) -> float:
    """Return the fraction that must go now, so that 28 layers together hold `total` times what the first would.

    Args:
        dropped: Fractions that went so far, each before a layer, fewer than 28.
        total: Sum of the retention of all layers.
    """
    left, held = 1.0, 0.0
    for part in dropped:
        left *= 1 - part
        held += left
    return max(0.0, 1 - (total - held) / ((RELEASED_DEPTH - len(dropped)) * left))
