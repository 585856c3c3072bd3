"""VidCom2: the tokens that are unlike the rest, and more of them in frames that are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.sets import Sets
from stgridpool.algorithms.typicality import frame_scales, typicality
from stgridpool.budget import share_out
from stgridpool.evidence import Evidence
from stgridpool.options import choice
from stgridpool.plan import Plan, Shape
from stgridpool.pruning_rate import RateBudgeted
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class VidCom2(RateBudgeted):
    """Keep the tokens of each frame that are least typical of video and frame, and more of untypical frames.

    See `stgridpool.algorithms.typicality` for both measures. Frame t of n tokens deserves ``k_t = r_t n`` of them,
    ``r_t = min(1, R (1 + p_t - 1 / T))`` at a retention R. Presets say how that becomes whole tokens:

    * ``corrected`` shares the budget out in proportion to r, by largest remainders: it is met exactly.
    * ``vllm`` rounds each k_t, to at least 1, and then drops the most typical of the tokens kept, or takes back the
      least typical of those dropped, over the whole video, until the budget is met exactly. Frames may become empty.
    * ``released`` rounds each k_t and leaves it there: totals miss the budget by a few tokens, and a retention of 1
      does not keep everything.

    Unlike LLaVA-Video's port in the released code, newlines stand where the tokens do, and none after empty rows.

    Source: VidCom2 (EMNLP 2025), arXiv 2505.14454; vLLM's ``vidcom2``.

    Attributes:
        preset: One of the above.

    Raises:
        ValueError: If an option is out of its range.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "vllm", "released")

    preset: str = "corrected"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)

    def least(self, shape: Shape) -> int:
        """Return one token per frame, which vLLM never goes below."""
        return shape[0]

    def planned_count(self, shape: Shape, total: int | None = None) -> int | None:
        """Return the budget; None for the released preset, where the tokens decide."""
        return None if self.preset == "released" else super().planned_count(shape, total)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Share the budget out over frames, and keep the least typical tokens of each."""
        found, sizes, count = typicality(tokens), tokens.frame_sizes(), self.count(tokens)
        typical = found.of_video + found.of_frame
        share = (self.ratio(count / len(tokens)) * frame_scales(found.of_video, tokens)).clamp(0, 1).cpu()
        if self.preset == "corrected":
            quota = share_out(count, share * sizes, sizes)
        else:
            quota = (share * sizes).round().long().clamp_min(1).minimum(sizes)
        sets = Sets.within(tokens, "frame")
        by_typicality = typical[sets.index].masked_fill(~sets.is_there, torch.inf).argsort(dim=1, stable=True)
        kept = sets.tokens_at(by_typicality, quota).sort().values
        if self.preset == "vllm":
            kept = _reconciled(kept, typical, count)
        return Plan.keep(kept, len(tokens))


def _reconciled(kept: Tensor, typical: Tensor, count: int) -> Tensor:
    """Drop the most typical of the tokens `kept`, or add the least typical others, until there are `count`."""
    first = torch.ones_like(typical).index_fill(0, kept, 0)  # 0 for those kept
    order = typical.argsort(stable=True)
    order = order[first[order].argsort(stable=True)]  # those kept, least typical first, and then the others
    return order[:count].sort().values
