"""SparseVLM: pruning inside the language model by the attention of relevant words, which merges some of the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.density_peaks import nearest_peaks, peak_scores, peaks, scaled_distances
from stgridpool.budget import exact_part
from stgridpool.compressor import POSITIONS, Compressor, Step, compress_tokens, planned_counts
from stgridpool.evidence import Evidence, Need, QueryAttention, RotaryBias
from stgridpool.options import choice, flag, fraction, whole_numbers
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import highest
from stgridpool.video_tokens import VideoTokens

RELEASED_DEPTH, RELEASED_LAYERS, RELEASED_TOKENS, NUM_HEADS = 32, (3, 7, 16), 576, 14
RELEASED_KEEP = {
    "released/192": (300, 200, 110),
    "released/128": (303, 110, 36),
    "released/96": (238, 48, 26),
    "released/64": (66, 30, 17),
    "plus/192": (300, 200, 118),
    "plus/128": (238, 108, 60),
    "plus/96": (246, 54, 28),
    "plus/64": (66, 34, 20),
}
"""Tokens kept of 576 after each layer, by the mean over layers that they are named after."""


@dataclass(frozen=True)
class SparseVLMLayer(Compressor):
    """Keep the visual tokens that relevant words attend to most in the layer before: one stage of `SparseVLM`.

    Attributes:
        keep: See `SparseVLM`; of the stages up to this one.
        plus: See `SparseVLM`.
        layer: The decoder layer whose input is pruned.
    """

    needs_maps: ClassVar[bool] = False

    keep: tuple[float, ...] = (0.5,)
    plus: bool = False
    layer: int = 1

    @property
    def needs(self) -> frozenset[Need]:
        """Attention of the layer before, and for "plus" what rotary embedding adds to it."""
        if not self.plus:
            return frozenset({QueryAttention(self.layer - 1, "relevant")})
        return frozenset({QueryAttention(self.layer - 1, "relevant", "none"), RotaryBias(self.layer - 1, "relevant")})

    @property
    def counts_from(self) -> int:
        """The first stage."""
        return len(self.keep) - 1

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens left of `total` before the first stage."""
        first = count = shape[0] * shape[1] * shape[2] if total is None else total
        for share in self.keep:
            kept, _, recycled = _counts(count, first, share, self.plus)
            count = kept + recycled
        return count

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep tokens, and merge the next ones into a few."""
        total = len(tokens)
        first = (*tokens.before, total)[-1 - self.counts_from]
        kept, pool, recycled = _counts(total, first, self.keep[-1], self.plus)
        order = self._scores(evidence).argsort(descending=True, stable=True)
        if not recycled:
            return Plan.keep(order[:kept].sort().values, total)
        members = order[kept : kept + pool]
        is_there = torch.ones(1, pool, dtype=torch.bool, device=members.device)
        distances = scaled_distances(tokens.features[members][None], is_there)
        distances = torch.minimum(distances, distances.mT)  # so that equal densities are equal
        centrality = peak_scores(distances, is_there, recycled, first_is_denser=False)
        centres, is_taken = peaks(centrality, torch.tensor([recycled]))
        goes_to = nearest_peaks(distances, centres, is_taken)[0]
        anchor = torch.cat([order[:kept], members[centres[0]]]).sort().values
        group = torch.full((total,), -1, device=anchor.device)
        group[order[:kept]] = torch.searchsorted(anchor, order[:kept])
        group[members] = torch.searchsorted(anchor, members[centres[0][goes_to]])
        return Plan.merge(group, anchor)

    def _scores(self, evidence: Evidence) -> Tensor:
        if not self.plus:
            return evidence[QueryAttention(self.layer - 1, "relevant")]
        attention = evidence[QueryAttention(self.layer - 1, "relevant", "none")]  # (N, heads, rows)
        unbiased = attention / evidence[RotaryBias(self.layer - 1, "relevant")][:, None]
        return unbiased[:, highest(unbiased.sum((0, 2)), NUM_HEADS)].mean((1, 2))


@dataclass(frozen=True)
class SparseVLM(Compressor):
    """Drop visual tokens after several decoder layers, those that the relevant words of the question attend to least.

    Relevant words match the video better than the average one, see `QueryRows`. Of the n tokens dropped, the first
    ``int(0.3 n) + 1`` are clustered by density peaks into a tenth as many, plus one, and stay as means at the centres.

    Presets are the released lists for 576 tokens of a picture, as fractions: ``released/192`` keeps 300, 200 and 110,
    on average over layers about 192. ``plus/...`` is SparseVLM+: attention is divided by what rotary embedding alone
    adds, which may turn its sign; the 14 heads of largest sum count; nothing is merged, and positions survive.

    Differences from the source: fractions hold for any number of tokens, layers for any depth; merged tokens stand
    among the others, not after them; there is no noise, so that two tokens may be equally dense, and both centres.

    Source: SparseVLM (ICML 2025), arXiv 2410.04417, and its released code.

    Attributes:
        preset: See above; None if the other options come from the caller.
        keep: Fractions kept after each of the layers, of the tokens before the first stage, above 0 and at most
            1, falling; rounded down, but at least 1 and at most all but one of the tokens there.
        plus: Whether it is SparseVLM+.
        layers: Decoder layers whose input is pruned, ascending, 1 to 1000: attention is that of the layer before. None
            for 3, 7 and 16 of 32 layers, and in proportion for other depths.
        positions: Where the tokens kept stand from there on, see `Step`; "reassign" unless `plus`, then "survive".

    Raises:
        ValueError: If an option is missing or out of its range, or layers and fractions differ in number.
    """

    without_budget: ClassVar[str] = "the number of merged tokens is not free; choose another of its presets"
    needs_maps: ClassVar[bool] = False
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"keep": tuple(count / RELEASED_TOKENS for count in counts), "plus": name.startswith("plus")}
        for name, counts in RELEASED_KEEP.items()
    }

    preset: str | None = "released/192"
    keep: tuple[float, ...] | None = None
    plus: bool | None = None
    layers: tuple[int, ...] | None = None
    positions: str | None = None

    def __post_init__(self) -> None:
        settings = {} if self.preset is None else self.PRESETS[choice("preset", self.preset, self.PRESETS)]
        keep = settings.get("keep") if self.keep is None else self.keep
        plus = flag("plus", settings.get("plus", False) if self.plus is None else self.plus)
        if not isinstance(keep, list | tuple) or not keep:
            raise ValueError(f"without a preset, keep must be a list of fractions, at least one, got {keep!r}")
        keep = tuple(fraction("keep", one) for one in keep)
        if any(after > before for before, after in pairwise(keep)):
            raise ValueError(f"keep must fall from layer to layer, got {keep}")
        named = self.preset if {"keep": keep, "plus": plus} == settings else None
        positions = self.positions or ("survive" if plus else "reassign")
        layers = self.layers if self.layers is None else whole_numbers("layers", self.layers, 1, 1000, 1000)
        for name, value in (("preset", named), ("keep", keep), ("plus", plus), ("layers", layers)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "positions", choice("positions", positions, POSITIONS))
        layers = self._layers(RELEASED_DEPTH)
        if len(layers) != len(keep):
            raise ValueError(f"layers and keep must be equally many, got {layers} and {keep}")
        if any(after <= before for before, after in pairwise(layers)):
            raise ValueError(f"layers must ascend, got {layers}")

    def _layers(self, num_layers: int) -> tuple[int, ...]:
        scaled = tuple(max(n, at * num_layers // RELEASED_DEPTH) for n, at in enumerate(RELEASED_LAYERS, start=1))
        return scaled if self.layers is None else self.layers

    def for_depth(self, num_layers: int) -> Compressor:
        """Name the layers.

        Raises:
            ValueError: If the model has no such layers.
        """
        layers = self._layers(num_layers)
        if layers[-1] >= num_layers:
            raise ValueError(f"layers must be below the model's {num_layers} layers, got {layers}")
        return replace(self, layers=layers)

    def steps(self) -> tuple[Step, ...]:
        """One at each of its layers."""
        layers, keep = self._layers(RELEASED_DEPTH), self.keep or ()
        return tuple(
            Step(SparseVLMLayer(keep[: number + 1], bool(self.plus), layer), layer, str(self.positions))
            for number, layer in enumerate(layers)
        )

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Drop one time after the other."""
        return compress_tokens(self, tokens, evidence)[1]

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens after the last stage."""
        return planned_counts(self.steps(), shape, total)[-1]


def _counts(total: int, first: int, share: float, plus: bool) -> tuple[int, int, int]:
    """Return how many of `total` tokens are kept, and clustered, and into how many; `share` is of `first`."""
    kept = max(1, min(exact_part(share, first), total - 1))
    dropped = total - kept
    pool = 0 if plus or not dropped else int(0.3 * dropped) + 1
    return kept, pool, pool // 10 + 1 if pool else 0
