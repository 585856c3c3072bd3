"""FastV: pruning inside the language model by the attention of the prompt's last token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from stgridpool.budget import split_layer_average
from stgridpool.compressor import POSITIONS, Compressor, Step
from stgridpool.evidence import Evidence, Need, QueryAttention
from stgridpool.options import choice, whole_number
from stgridpool.scorer import LayerAveraged, Scorer
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class FastV(LayerAveraged, Scorer):
    """Keep the visual tokens that the last token of the prompt attends to most in the layer before `layer`.

    Attention is averaged over heads. The kept tokens enter layer `layer` at the positions that they had. Without a
    budget the method keeps half of them.

    Source: FastV (ECCV 2024), arXiv 2403.06764. The paper averages the attention that a token gets from all others; its
    released code uses only that of the last token, which takes one row of attention. So does ``released``, the only
    preset. The code also takes an absolute number of tokens, and prunes every prompt of a batch by the attention in the
    first one; here each prompt is pruned by its own.

    Attributes:
        preset: "released", see above.
        retention: See `Budgeted`; a fraction of the tokens that reach the layer, 0.5 if no budget is given.
        scope: See `Scorer`.
        layer: The decoder layer K whose input is pruned, 1 to 1000.
        positions: How the kept tokens get their positions from there on, see `Step`.
        layer_average: See `LayerAveraged`; layers below K count as 1. `for_depth` turns it into `retention`.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    default: ClassVar[tuple[str, float]] = ("retention", 0.5)
    PRESETS: ClassVar[tuple[str, ...]] = ("released",)

    preset: str = "released"
    scope: str = "video"
    layer: int = 2
    positions: str = "survive"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)
        whole_number("layer", self.layer, 1, 1000)
        choice("positions", self.positions, POSITIONS)

    @property
    def needs(self) -> frozenset[Need]:
        """The attention in the layer before `layer`."""
        return frozenset({QueryAttention(self.layer - 1)})

    def for_depth(self, num_layers: int) -> Compressor:
        """Turn `layer_average` into the retention from `layer` on.

        Raises:
            ValueError: If the layers below `layer` alone exceed the average, or the model has no layer `layer`.
        """
        if self.layer_average is None:
            return self
        if self.layer >= num_layers:
            raise ValueError(f"layer must be below the model's {num_layers} layers, got {self.layer}")
        lengths = (self.layer, num_layers - self.layer)
        return replace(
            self, layer_average=None, retention=split_layer_average(self.layer_average, lengths, (None, 1))[1]
        )

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Return the attention that each token receives."""
        del tokens
        return evidence[QueryAttention(self.layer - 1)]

    def steps(self) -> tuple[Step, ...]:
        """Return the one place where the method acts: its decoder layer."""
        return (Step(self, self.layer, self.positions),)
