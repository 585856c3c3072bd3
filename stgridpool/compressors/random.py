"""Random pruning: the baseline of every pruner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.evidence import Evidence
from stgridpool.options import whole_number
from stgridpool.plan import Plan
from stgridpool.scorer import Scorer, highest_per_group
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class Random(Scorer):
    """Keep tokens drawn at random without replacement; the same tokens on every device.

    The method has its own generator on the CPU, so videos with the same number of tokens keep the same ones. Scope
    "stratified" with a budget of K of N tokens cuts the video into K blocks of consecutive tokens and keeps one token
    of each; block i begins at token ``ceil(i N / K)``.

    Attributes:
        scope: "frame" draws equally many tokens from each frame, "video" draws from the whole video, "stratified" draws
            one token from each block.
        seed: Seed of the generator, 0 to 2^31 - 1.

    Raises:
        ValueError: If an option is out of its range.
    """

    SCOPES: ClassVar[tuple[str, ...]] = ("frame", "video", "stratified")

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("seed", self.seed, 0, 2**31 - 1)

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Rank the tokens in random order."""
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(self.seed))
        return order.to(tokens.features.device)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep the tokens with the highest random ranks in each frame, in the video or in each block."""
        if self.scope != "stratified":
            return super().plan(tokens, evidence)
        count, scores = self.count(tokens), self.score(tokens, evidence)
        block = torch.arange(len(tokens), device=scores.device) * count // len(tokens)
        one_each = torch.ones(count, dtype=torch.int64)
        return Plan.keep(highest_per_group(scores, block, one_each), len(tokens))
