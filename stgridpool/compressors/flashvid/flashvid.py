"""FlashVID: attended and diverse tokens of each frame, and trees over time that represent the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.max_min import farthest_first
from stgridpool.algorithms.segments import frame_similarity, segment_lengths, segment_of_frames
from stgridpool.budget import share_equally
from stgridpool.compressor import Compressor
from stgridpool.compressors.fastv import FastV
from stgridpool.compressors.flashvid.trees import link, merge
from stgridpool.evidence import IMPORTANCE, Evidence, Need
from stgridpool.options import choice, number, whole_number
from stgridpool.plan import Plan, Shape
from stgridpool.two_halves import TwoHalves
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class FlashVID(TwoHalves):
    """Keep tokens that are attended to and unlike each other, merge the rest over time; then prune inside once more.

    Before the language model: the video is cut where the means of neighbouring frames are least alike, and frames share
    the budget equally. Of a frame's share a part of `selected`, rounded up, is chosen one by one, each time the token
    farthest from those chosen, where the distance (1 - cosine) is multiplied by the attention that the token gets in
    the vision tower and by its product with the mean of the segment. Each of the other tokens is linked to the one of
    the frame before that is most like it among those not chosen, within the segment and above `merge_threshold`; only
    as many as leave enough, the most alike. A tree of links becomes a token on the place of its root, and these are
    merged into density peaks of each frame until the budget is met. Inside it: those remain that the last token of the
    prompt attends to most, as in `fastv`.

    Source: FlashVID (ICLR 2026), arXiv 2602.08024. ``corrected``, the default, differs from its released code as
    follows. ``released`` does as the code does, with its selection "attn_div_v2", and ``released_attn_div`` with
    "attn_div", which looks at attention alone and never chooses a token twice.

    * The code divides the sum of a tree by one more than the children of its root, so that the tokens of deep trees are
      too long; here it is the mean.
    * In a segment of one frame the code merges chosen tokens as well, and so has two tokens on some places.
    * Once only tokens of negative product remain to choose, "attn_div_v2" takes chosen ones again.
    * The code rounds up in each frame, and lets the number of peaks decide how many neighbours count, at most 7, so
      that with few of them rounding decides; here the budget is exact, and 7 count.

    The code's budget is a `layer_average` R of which ``1.25 * R`` enters; here both follow from `inner_retention`.

    Attributes:
        preset: "corrected", "released" or "released_attn_div", see above.
        importance: Attention "received" from all patches, of the "class" token, or of SigLIP's "pool_head".
        selected: Part of a frame's tokens that is chosen, 0 to 1.
        merge_threshold: Cosine above which tokens of neighbouring frames are linked, -1 to 1.
        segments: Smallest number of segments, 1 to 1000; a segment has a frame at least.
        threshold: Frames less alike than this are in different segments, -1 to 1.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released", "released_attn_div")
    released_layer: ClassVar[tuple[int, int]] = (20, 28)

    inner_retention: float = 0.3
    preset: str = "corrected"
    importance: str = "received"
    selected: float = 0.7
    merge_threshold: float = 0.8
    segments: int = 8
    threshold: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("preset", self.preset, self.PRESETS)
        choice("importance", self.importance, IMPORTANCE)
        number("selected", self.selected, 0, 1)
        number("merge_threshold", self.merge_threshold, -1, 1)
        whole_number("segments", self.segments, 1, 1000)
        number("threshold", self.threshold, -1, 1)

    @property
    def front_needs(self) -> frozenset[Need]:
        """The attention that `importance` names."""
        return frozenset({IMPORTANCE[self.importance]})

    def inner(self, layer: int) -> Compressor:
        """Prune by the attention of the last token of the prompt."""
        return FastV(self.inner_retention, layer=layer, positions=self.positions)

    def planned_front(self, shape: Shape, total: int | None) -> int | None:
        """Return the budget; the released forms miss it by what their segments decide."""
        return super().planned_front(shape, total) if self.preset == "corrected" else None

    def plan_front(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Choose tokens, link the others to trees, and merge the trees."""
        maps = tokens.maps().flatten(1, 2)  # (T, N, D)
        attention = evidence[IMPORTANCE[self.importance]].view(maps.shape[:2])
        values = maps.float() / maps.abs().amax().float().clamp_min(torch.finfo(torch.float32).tiny)
        unit, means = F.normalize(values, dim=-1), values.mean(1)
        lengths = segment_lengths(frame_similarity(means), self.segments, self.threshold)
        shares = share_equally(self.count(tokens), tokens.frame_sizes())
        quota = torch.tensor([math.ceil(self.selected * share) for share in shares.tolist()])
        chosen = self._chosen(unit, self._relevance(values, means, lengths) * attention, quota)
        is_free = torch.ones_like(attention, dtype=torch.bool).flatten().index_fill(0, chosen, False).view_as(attention)
        is_released = self.preset != "corrected"
        trees = link(unit, is_free, lengths, shares, self.merge_threshold, is_released)
        if is_released:  # frames that are segments of their own merge chosen tokens as well
            is_free |= (lengths == 1)[segment_of_frames(lengths)].to(is_free.device)[:, None]
        return merge(maps, chosen, is_free, trees, lengths, shares - quota, is_released)

    def _relevance(self, values: Tensor, means: Tensor, lengths: Tensor) -> Tensor | float:
        """Return the product (T, N) of each token with the mean of its segment; 1 where a preset does without."""
        if self.preset == "released_attn_div":
            return 1.0
        of_frame = torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in means.split(lengths.tolist())])
        return (values @ of_frame[:, :, None])[:, :, 0]

    def _chosen(self, unit: Tensor, weight: Tensor, quota: Tensor) -> Tensor:
        """Choose `quota` (T,) tokens of each frame, far from each other by weighted distance: (sum,) int64.

        Args:
            unit: (T, N, D) of length 1.
            weight: (T, N), factor of the distances to each token.
            quota: (T,) int64 on the CPU.
        """
        distances = (1 - unit @ unit.mT) * weight[:, None]
        distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        is_there = torch.ones(unit.shape[:2], dtype=torch.bool, device=unit.device)
        most = int(quota.max())
        starts = torch.arange(len(unit), device=unit.device)[:, None] * unit.shape[1]
        if not most:
            return starts.new_empty(0)
        places = farthest_first(distances, is_there, most, again=self.preset == "released")
        return (places + starts)[(torch.arange(most) < quota[:, None]).to(unit.device)]
