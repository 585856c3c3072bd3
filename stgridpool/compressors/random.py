"""Tokens kept by chance: the baseline of every pruner."""

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
    """Keep tokens drawn without replacement, by a generator of its own on the CPU: the same ones on every device.

    Videos of the same number of tokens keep the same ones. A budget of K tokens of N in scope "stratified" keeps one
    of each of K blocks of consecutive tokens; block i begins at token ``ceil(i N / K)``.

    Attributes:
        scope: "frame" draws equally many of each frame, "video" of the whole video, "stratified" one per block.
        seed: Of the generator, 0 to 2^31 - 1.

    Raises:
        ValueError: If an option is out of its range.
    """

    SCOPES: ClassVar[tuple[str, ...]] = ("frame", "video", "stratified")

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("seed", self.seed, 0, 2**31 - 1)

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Put the tokens in random order."""
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(self.seed))
        return order.to(tokens.features.device)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep the first in random order, of each frame, of the video or of each block."""
        if self.scope != "stratified":
            return super().plan(tokens, evidence)
        count, scores = self.count(tokens), self.score(tokens, evidence)
        block = torch.arange(len(tokens), device=scores.device) * count // len(tokens)
        one_each = torch.ones(count, dtype=torch.int64)
        return Plan.keep(highest_per_group(scores, block, one_each), len(tokens))
