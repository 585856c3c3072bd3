"""Multi-granular spatio-temporal token merging (STTM)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.threshold_search import highest_threshold
from stgridpool.budget import Budget
from stgridpool.compressor import POSITIONS, Compressor, Step
from stgridpool.compressors.sttm.merge_forest import MergeForest
from stgridpool.compressors.sttm.node_similarity import node_similarity
from stgridpool.compressors.sttm.presets import published_settings, settle
from stgridpool.compressors.sttm.quadtree import Quadtree, quadtree, root_depth
from stgridpool.compressors.sttm.quadtree_video import Join, QuadtreeVideo
from stgridpool.compressors.sttm.temporal_merging import MODES, joining_rule
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Evidence
from stgridpool.options import choice, flag, fraction, number, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class STTM(Compressor):
    """Merge similar tokens: first those of each frame into nodes of a quadtree, then nodes of adjacent frames.

    From the roots down, a quadtree node that is similar enough to each of its children becomes one token; otherwise the
    search continues at its children. Nodes of adjacent frames are merged if one covers the other and they are similar
    enough; the merged token takes the place of the first. Similarity is the cosine. The feature of a node is the mean
    of those of its children, and a token is the mean of its nodes.

    Mode ``released`` has the released code's quirks: empty places of a group are filled with the top left node, a group
    of one stops the search, and matches spread by a rule that may stop too early (`join_as_released`). For the others
    see `joining_rule`.

    A budget (`retention`, `tokens` or `tokens_per_frame`) is met exactly: both thresholds are lowered together, at the
    distance between `spatial_threshold` and `temporal_threshold`, to the highest value that leaves no more tokens than
    the budget; then the weakest merges are undone one by one. If the roots alone exceed the budget, coarser roots are
    used. To avoid waiting for the device, labels spread for a fixed number of rounds, enough for a chain through all
    frames; only chains that also wind between nodes of a frame may be joined in part.

    Presets are the paper's runs, ``model/data set/budget in %``, such as ``llava-video-7b/videomme/50``; ``released``
    is that one. The runs with 7B models act before layer 2, those with 72B before layer 0. With None, the
    caller passes the six options that presets set. Explicit options take precedence over the preset. The object stores
    the resulting options, and keeps the name of the preset only if all of them are those of the preset; none of the
    paper's runs had a budget.

    Source: STTM (ICCV 2025), arXiv 2507.07990, and its released code. We never round features in between: in half
    precision the released code rounds every level and sums in half precision, so its decisions may differ close to a
    threshold. If a small frame has fewer levels than `root_level`, its tokens are the roots; the released code fails.

    Attributes:
        preset: See above, or None.
        spatial_threshold: Smallest cosine between a node and its children, -2 to 2; above 1 nothing is merged within a
            frame.
        temporal_threshold: Smallest cosine between nodes of adjacent frames, -2 to 2; 0 or less switches merging over
            time off.
        root_level: Level of the roots, -32 to 32, counted from the coarsest one, whose shorter side is 2; -1 means
            tokens.
        layer: The decoder layer k whose input is compressed, 0 to 1000; 0 is before the language model.
        mode: ``released``, ``components`` or ``directed``, see above.
        weighted_average: Whether means are over tokens instead of over children and nodes.
        head_dim: Width of the parts whose cosines are averaged, 1 to 65536; None for the whole width.
        slow: Whether to use the released "most similar destination" (`drop_repeated_neighbours`), in mode ``released``
            only; similarity over time then ignores `head_dim`.
        positions: How merged tokens get their positions in the language model, ``reassign``, ``survive`` or ``merge``,
            see `stgridpool.step.Step`. In mode ``released`` generated tokens keep the released gap.
        weighted_positions: With positions ``merge``, whether to average over tokens instead of over children and nodes.
        retention: Fraction of the tokens to keep, above 0 and at most 1, see `Budget.ratio`.
        tokens, tokens_per_frame: See `Budget`.

    Raises:
        ValueError: If the preset is unknown, or an option is missing, of the wrong type or out of its range.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = published_settings()

    preset: str | None = "released"
    # None stands for the preset's value until __post_init__ replaces it.
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
        settle(self, self.preset, self.PRESETS)
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
            raise ValueError(f"slow needs mode 'released', got {self.mode!r}; 'directed' implements what it intended")
        if self.weighted_positions and self.positions != "merge":
            raise ValueError(f"weighted_positions needs positions 'merge', got {self.positions!r}")
        if self.retention is not None:
            object.__setattr__(self, "retention", fraction("retention", self.retention))
        Budget(self.retention, self.tokens, self.tokens_per_frame)

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Set `retention`. See `Compressor.at_retention`."""
        unset = replace(self, retention=share, tokens=None, tokens_per_frame=None)
        return replace(unset, retention=reference.share_of_input(unset, share, of))

    def steps(self) -> tuple[Step, ...]:
        """Return the one place where the method acts: its decoder layer."""
        is_released = self.mode == "released"
        return (Step(self, self.layer, self.positions, is_released, self.weighted_positions),)

    @property
    def budget(self) -> Budget:
        """The budget that the options set; empty if the thresholds decide."""
        return Budget(self.retention, self.tokens, self.tokens_per_frame)

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens in the budget, which is met exactly; None without a budget.

        Raises:
            BudgetError: If merging over time is off and the budget is below one token per frame.
        """
        count = self.budget.count(shape, total)
        self._depth(shape, count)
        return count

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Merge tokens, which must fill their lattice.

        Raises:
            ValueError: If they do not, their width is not a multiple of `head_dim`, or the budget cannot be met, see
                `planned_count`.
        """
        return self.forest(tokens.maps()).plan(self.weighted_average)

    def forest(self, tokens: Tensor) -> MergeForest:
        """Decide which cells of feature maps (T, H, W, D) are merged.

        Raises:
            ValueError: See `plan`.
        """
        shape = tokens.shape[0], tokens.shape[1], tokens.shape[2]
        count = self.planned_count(shape)
        tree = quadtree(shape[1:], self._depth(shape, count), self.weighted_average, tokens.device)
        video = self._video(tokens, tree)
        if count is None:
            return video.forest(self.spatial_threshold, self.temporal_threshold, self._join(shape))
        offset = self.spatial_threshold - self.temporal_threshold
        join = self._join(shape, num_rounds=4 + shape[0].bit_length())

        def at(threshold: Tensor) -> MergeForest:
            return video.forest(threshold, threshold - offset, join)

        count_at = video.counting(lambda threshold: at(threshold).num_trees(), offset)
        bound = torch.tensor(2 + abs(offset), device=tokens.device)  # at -bound everything is merged, at bound nothing
        threshold = highest_threshold(count_at, count, -bound, bound)
        return at(threshold).cut(count)

    def _video(self, tokens: Tensor, tree: Quadtree) -> QuadtreeVideo:
        width, head_dim = tokens.shape[3], self.head_dim or tokens.shape[3]
        if width % head_dim:
            raise ValueError(f"head_dim must divide the width {width} of the tokens, got {head_dim}")
        within = node_similarity(tokens, tree, width // head_dim)
        across = node_similarity(tokens, tree) if self.slow and head_dim != width else within
        return QuadtreeVideo.of(tree, within, across, as_released=self.mode == "released")

    def _join(self, shape: Shape, num_rounds: int | None = None) -> Join | None:
        if self.temporal_threshold <= 0 or shape[0] == 1:
            return None
        return joining_rule(self.mode, shape[0], self.slow, num_rounds)

    def _depth(self, shape: Shape, count: int | None) -> int:
        return root_depth(shape, self.root_level, count, merges_over_time=self.temporal_threshold > 0)
