"""Multi-granular spatio-temporal token merging (STTM)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.threshold_search import highest_threshold
from stgridpool.budget import Budget
from stgridpool.compressor import POSITIONS, Compressor, Step
from stgridpool.compressors.sttm.merge_forest import MergeForest
from stgridpool.compressors.sttm.node_similarity import node_similarity
from stgridpool.compressors.sttm.presets import published_settings
from stgridpool.compressors.sttm.quadtree import Quadtree, halved_sizes, quadtree
from stgridpool.compressors.sttm.quadtree_video import Join, QuadtreeVideo
from stgridpool.compressors.sttm.temporal_merging import (
    Matches,
    drop_repeated_neighbours,
    follow_most_similar,
    join_as_released,
    join_components,
)
from stgridpool.evidence import Evidence
from stgridpool.options import choice, flag, fraction, number, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

MODES = ("released", "components", "directed")


@dataclass(frozen=True)
class STTM(Compressor):
    """Merge like tokens: of each frame into the nodes of a quadtree, then nodes into those of the frame before.

    From the roots down, a quadtree node that is similar enough to each of its children becomes one token; else its
    children are looked at. Nodes of neighbouring frames that cover each other, and are similar enough, are merged, and
    the first one keeps its place. Similarity is the cosine, a feature the mean of its children's, a token the mean of
    its nodes.

    Modes:

    * ``released``: as the released code, with its quirks: empty places of a group are filled with the top left node, a
      group of one stops the search, and matches spread by a rule that may stop too early (`join_as_released`);
    * ``components``: all nodes that matches connect become one;
    * ``directed``: each node follows its most similar match in the frame before.

    A budget (`retention`, `tokens` or `tokens_per_frame`) is met exactly: both thresholds are lowered together, at the
    distance of `spatial_threshold` and `temporal_threshold`, to the highest value at which no more tokens are left than
    wanted; then the weakest merges are undone one by one. Where the roots alone are too many, coarser ones are used.
    So that nothing waits for the device, labels then spread for a fixed number of rounds, enough for a chain through
    all frames; only chains that also wind between nodes of a frame may be joined in part.

    Presets are the paper's runs, ``model/data set/budget in %``, such as ``llava-video-7b/videomme/50``; ``released``
    is that one. The runs with 7B models act before layer 2, those with 72B before layer 0. With None, the six options
    that presets set come from the call. Explicit options take precedence over the preset. The object keeps what follows
    from both, and `preset` only if every option is that of the preset; none of the paper's runs had a budget.

    Source: STTM (ICCV 2025), arXiv 2507.07990, and its released code. Features are never rounded in between: in half
    precision the released code rounds every level, sums in half precision, and so may decide otherwise close to a
    threshold. A root level beyond the pyramid of a small grid means its tokens themselves; the released code fails.

    Attributes:
        preset: see above, or None.
        spatial_threshold: smallest cosine of a node and its children, -2 to 2; above 1 nothing is merged within a
            frame.
        temporal_threshold: smallest cosine of nodes of neighbouring frames, -2 to 2; at most 0 switches merging over
            time off.
        root_level: level of the roots, -32 to 32, counted from the coarsest one, whose shorter side is 2; -1 means
            tokens.
        layer: the decoder layer k whose input is compressed, 0 to 1000; 0 is before the language model.
        mode: see above.
        weighted_average: whether means are over tokens instead of over children and nodes.
        head_dim: if given, similarity is the mean of the cosines of parts of this width, 1 to 65536.
        slow: the released "most similar destination" (`drop_repeated_neighbours`), with mode ``released``; without
            `head_dim` over time.
        positions: where merged tokens stand in the language model, ``reassign``, ``survive`` or ``merge``, see
            `stgridpool.compressor.Step`. In mode ``released`` generated tokens keep the released gap.
        weighted_positions: with positions ``merge``, average over tokens instead of over children and nodes.
        retention: fraction of the tokens to keep, above 0 and at most 1, `Budget`'s ratio.
        tokens, tokens_per_frame: see `Budget`.

    Raises:
        ValueError: if the preset is unknown, or an option is missing, of the wrong type or out of its range.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = published_settings()

    preset: str | None = "released"
    # None stands for the preset's value until __post_init__ has put it in its place.
    spatial_threshold: float = None  # type: ignore[assignment]
    temporal_threshold: float = None  # type: ignore[assignment]
    root_level: int = None  # type: ignore[assignment]
    layer: int = None  # type: ignore[assignment]
    mode: str = None  # type: ignore[assignment]
    positions: str = None  # type: ignore[assignment]
    weighted_average: bool = False
    head_dim: int | None = None
    slow: bool = False
    weighted_positions: bool = False
    retention: float | None = None
    tokens: int | None = None
    tokens_per_frame: int | None = None

    def __post_init__(self) -> None:
        self._settle()
        for name in ("spatial_threshold", "temporal_threshold"):
            object.__setattr__(self, name, number(name, getattr(self, name), -2, 2))
        whole_number("root_level", self.root_level, -32, 32)
        whole_number("layer", self.layer, 0, 1000)
        if self.head_dim is not None:
            whole_number("head_dim", self.head_dim, 1, 65536)
        choice("mode", self.mode, MODES)
        choice("positions", self.positions, POSITIONS)
        for name in ("weighted_average", "slow", "weighted_positions"):
            flag(name, getattr(self, name))
        if self.slow and self.mode != "released":
            raise ValueError(f"slow needs mode 'released', got {self.mode!r}: 'directed' does what it was meant to do")
        if self.weighted_positions and self.positions != "merge":
            raise ValueError(f"weighted_positions needs positions 'merge', got {self.positions!r}")
        if self.retention is not None:
            object.__setattr__(self, "retention", fraction("retention", self.retention))
        Budget(self.retention, self.tokens, self.tokens_per_frame)

    def _settle(self) -> None:
        """Fill options that were not given from the preset, and forget a preset that was overruled."""
        missing = [name for name in self.PRESETS["released"] if getattr(self, name) is None]
        if self.preset is None:
            if missing:
                raise ValueError(f"without a preset, {', '.join(missing)} must be given")
            return
        settings = self.PRESETS[choice("preset", self.preset, self.PRESETS)]
        for name in missing:
            object.__setattr__(self, name, settings[name])
        for field in fields(self)[1:]:
            if getattr(self, field.name) != settings.get(field.name, field.default):
                object.__setattr__(self, "preset", None)

    def steps(self) -> tuple[Step, ...]:
        """At its decoder layer; in mode ``released`` generated tokens keep the released gap."""
        is_released = self.mode == "released"
        return (Step(self, self.layer, self.positions, is_released, self.weighted_positions),)

    @property
    def budget(self) -> Budget:
        """How many tokens are to be left; empty where the thresholds decide."""
        return Budget(self.retention, self.tokens, self.tokens_per_frame)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the budget's number of tokens, which is met exactly; None without a budget.

        Raises:
            ValueError: If that is fewer than one token of a (T, H, W) video, or without merging over time one a frame.
        """
        count = self.budget.count(shape, total)
        self._depth(shape, count)
        return count

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge tokens that fill their lattice.

        Raises:
            ValueError: If they do not, their width is no multiple of `head_dim`, or the budget cannot be met, see
                `planned_count`.
        """
        return self.forest(tokens.maps()).plan(self.weighted_average)

    def forest(self, tokens: Tensor) -> MergeForest:
        """Decide what is merged into what in feature maps (T, H, W, D).

        Raises:
            ValueError: See `plan`.
        """
        grid = tokens.shape[0], tokens.shape[1], tokens.shape[2]
        count = self.planned_count(grid)
        video = self._video(tokens, quadtree(grid[1:], self._depth(grid, count), self.weighted_average, tokens.device))
        if count is None:
            return video.forest(self.spatial_threshold, self.temporal_threshold, self._join(grid))
        offset = self.spatial_threshold - self.temporal_threshold
        join = self._join(grid, num_rounds=4 + grid[0].bit_length())

        def at(threshold: Tensor) -> MergeForest:
            return video.forest(threshold, threshold - offset, join)

        bound = torch.tensor(2 + abs(offset), device=tokens.device)  # all is merged at -bound, nothing at bound
        threshold = highest_threshold(lambda threshold: at(threshold).num_trees(), count, -bound, bound)
        return at(threshold).cut(count)

    def _video(self, tokens: Tensor, tree: Quadtree) -> QuadtreeVideo:
        width, head_dim = tokens.shape[3], self.head_dim or tokens.shape[3]
        if width % head_dim:
            raise ValueError(f"head_dim must divide the width {width} of the tokens, got {head_dim}")
        within = node_similarity(tokens, tree, width // head_dim)
        across = node_similarity(tokens, tree) if self.slow and head_dim != width else within
        return QuadtreeVideo.of(tree, within, across, as_released=self.mode == "released")

    def _join(self, grid: Shape, num_rounds: int | None = None) -> Join | None:
        if self.temporal_threshold <= 0 or grid[0] == 1:
            return None
        if self.mode == "directed":
            return follow_most_similar
        if self.mode == "components":
            return partial(join_components, num_rounds=num_rounds)

        def join(matches: Matches, num_cells: int) -> tuple[Tensor, Tensor]:
            chosen = drop_repeated_neighbours(matches, grid[0]) if self.slow else matches
            return join_as_released(chosen, num_cells, num_rounds)

        return join

    def _depth(self, grid: Shape, count: int | None) -> int:
        """How many halvings above the tokens the roots lie: those of `root_level`, more where `count` needs it."""
        sizes = halved_sizes(grid[1:])
        coarsest = next(depth for depth, size in enumerate(sizes) if min(size) <= 2)
        depth = max(coarsest - self.root_level, 0) if self.root_level >= 0 else min(-1 - self.root_level, coarsest)
        frames = 1 if self.temporal_threshold > 0 else grid[0]
        while count is not None and math.prod(sizes[depth]) * frames > count:
            depth += 1
            if depth == len(sizes):
                raise ValueError(
                    f"without merging over time at least {frames} tokens of a {grid} grid are left, one a frame, not "
                    f"{count}: set temporal_threshold above 0 or ask for more"
                )
        return depth
