"""Budgeted: a method that meets a budget exactly; Scorer: a pruner, which scores tokens and keeps the highest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.typicality import frame_scales, typicality
from stgridpool.budget import Budget, share_equally, share_out, warn_of_large_budget
from stgridpool.compressor import TOKENS, Compressor, Step
from stgridpool.evidence import Evidence
from stgridpool.options import choice, fraction
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

if TYPE_CHECKING:
    from stgridpool.equal_budget import Reference

BUDGETS = ("retention", "tokens", "tokens_per_frame")
FRAME_BUDGETS = ("uniform", "uniqueness")


@dataclass(frozen=True)
class Budgeted(Compressor):
    """Base of methods that meet a budget exactly.

    Attributes:
        alternatives: Options that may decide in place of a budget; class attribute.
        default: Option, and its value, if neither a budget nor an alternative is given; class attribute.
        retention: Fraction of the tokens to keep, above 0 and at most 1, see `Budget.ratio`.
        tokens: Number of tokens to keep per video.
        tokens_per_frame: Number of tokens to keep per frame.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    needs_maps: ClassVar[bool] = False
    alternatives: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[tuple[str, float]] = ("retention", 0.25)

    retention: float | None = None
    tokens: int | None = None
    tokens_per_frame: int | None = None

    def __post_init__(self) -> None:
        budget, others = (self._given(names) for names in (BUDGETS, self.alternatives))
        if len(budget) > 1 or (budget and others):
            raise ValueError(f"a budget is given in one way, got {budget | others}; leave out all but one")
        if not budget and not others:
            object.__setattr__(self, *self.default)
        if self.retention is not None:
            object.__setattr__(self, "retention", fraction("retention", self.retention))
        Budget(self.retention, self.tokens, self.tokens_per_frame)

    def _given(self, names: Sequence[str]) -> dict[str, object]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def budget(self) -> Budget:
        """Return the budget that the options set; none if an alternative decides."""
        return Budget(self.retention, self.tokens, self.tokens_per_frame)

    def count(self, tokens: VideoTokens) -> int:
        """Return how many of `tokens` to keep."""
        total = tokens.before[-self.counts_from] if self.counts_from else len(tokens)
        if (self.budget.named(tokens.shape) or 0) > len(tokens):
            warn_of_large_budget(repr(self))
        return self.budget.count(tokens.shape, total) or 1

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the number of tokens that the budget allows."""
        return self.budget.count(shape, total)

    def at_retention(self, share: float, of: str, reference: Reference) -> Compressor:
        """Set `retention` and unset other budgets; see `Compressor.at_retention`."""
        unset = dict.fromkeys(("tokens", "tokens_per_frame", *self.alternatives))
        with_default = replace(self, **unset, retention=share)
        return replace(with_default, retention=reference.share_of_input(with_default, share, of))

    def steps(self) -> tuple[Step, ...]:
        """Return the one place where the method acts: after the checkpoint's own pooling."""
        return (Step(self, TOKENS),)


@dataclass(frozen=True)
class LayerAveraged(Budgeted):
    """Base of methods whose budget may be a mean over the layers of the language model.

    Attributes:
        layer_average: In place of a budget, the mean retention over all layers of the language model, above 0 and at
            most 1. `for_depth` replaces it by options that do not depend on the number of layers.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("layer_average",)

    layer_average: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer_average is not None:
            fraction("layer_average", self.layer_average)

    @property
    def budget(self) -> Budget:
        """The budget that the options set.

        Raises:
            ValueError: If it depends on the number of layers, which is not known yet.
        """
        if self.layer_average is not None:
            raise ValueError(f"layer_average={self.layer_average} depends on the language model: call for_depth first")
        return super().budget


@dataclass(frozen=True)
class FrameBudgeted(Budgeted):
    """Base of methods that share their budget among the frames.

    Attributes:
        frame_budget: "uniform" shares it equally. "uniqueness" gives more to frames that are unlike the rest of the
            video, in proportion to `frame_scales`, as VidCom2 does; no frame gets more than it has.

    Raises:
        ValueError: If an option is out of its range.
    """

    frame_budget: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("frame_budget", self.frame_budget, FRAME_BUDGETS)

    def frame_shares(self, tokens: VideoTokens) -> Tensor:
        """Return how many tokens of each frame to keep, (T,) int64 on the CPU."""
        sizes, count = tokens.frame_sizes(), self.count(tokens)
        if self.frame_budget == "uniform":
            return share_equally(count, sizes)
        scale = frame_scales(typicality(tokens).of_video, tokens)
        share = (count / len(tokens) * scale).clamp(0, 1).cpu()
        return share_out(count, share * sizes, sizes)


@dataclass(frozen=True)
class Scoped(FrameBudgeted):
    """Base of methods that choose tokens in each frame separately, or in the whole video.

    Attributes:
        scope: "frame" shares the budget among the frames as `frame_budget` says, "video" keeps the best tokens of the
            whole video.

    Raises:
        ValueError: If an option is out of its range.
    """

    SCOPES: ClassVar[tuple[str, ...]] = ("frame", "video")

    scope: str = "frame"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("scope", self.scope, self.SCOPES)
        if self.scope != "frame" and self.frame_budget != "uniform":
            raise ValueError(
                f"frame_budget={self.frame_budget!r} needs scope='frame', got scope={self.scope!r}, which shares "
                "nothing among frames"
            )

    def shares(self, tokens: VideoTokens) -> Tensor:
        """Return how many tokens to keep of each set, (T,) int64 on the CPU, or (1,) where the video is one set."""
        return self.frame_shares(tokens) if self.scope == "frame" else torch.tensor([self.count(tokens)])


@dataclass(frozen=True)
class Rounded(Scoped):
    """Base of methods whose released code rounds a retention to a number of tokens differently.

    Attributes:
        PRESETS: Values of `preset`; class attribute.
        released_rounding: How the code rounds, see `Budget`; class attribute.
        preset: "corrected" rounds down, "released" as the code does.

    Raises:
        ValueError: If an option is out of its range.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released")
    released_rounding: ClassVar[str]

    preset: str = "corrected"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)

    @property
    def budget(self) -> Budget:
        """The budget that the options set."""
        return replace(super().budget, rounding=self.released_rounding if self.preset == "released" else "down")


@dataclass(frozen=True)
class Scorer(Scoped):
    """Base of pruners, which keep the tokens with the highest scores, in their order. The first of equals wins."""

    @abstractmethod
    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Return the score (N,) of every token; the highest are kept."""

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep the tokens with the highest scores."""
        scores = self.score(tokens, evidence).float()
        if self.scope == "video":
            return Plan.keep(highest(scores, self.count(tokens)), len(tokens))
        return Plan.keep(highest_per_group(scores, tokens.frames(), self.frame_shares(tokens)), len(tokens))


def highest(scores: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of the highest scores (N,), ascending; the first of equals wins."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def highest_per_group(scores: Tensor, group: Tensor, quota: Tensor) -> Tensor:
    """Return the indices of the highest scores in every group, ascending; the first of equals wins.

    Args:
        scores: (N,).
        group: (N,) int64, the group of each score, 0 to K - 1.
        quota: (K,) int64 on the CPU, the number to take from each group, at most its size.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]  # by group, descending within each
    sizes = torch.zeros(len(quota), dtype=torch.int64, device=group.device)
    sizes = sizes.scatter_add(0, group, torch.ones_like(group))
    starts = sizes.cumsum(0) - sizes
    ranks = torch.arange(len(order), device=order.device) - starts[group[order]]
    is_taken = ranks < quota.to(order.device)[group[order]]
    return order.where(is_taken, len(order)).sort().values[: int(quota.sum())]
