"""AOT: anchors that gather their neighbours in the frame, and then what is like them in later frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stgridpool.algorithms.transport import gather_over_time, transport
from stgridpool.compressor import Compressor
from stgridpool.evidence import AttentionReceived, Evidence, Need
from stgridpool.frames.layout import lay_out
from stgridpool.frames.patterns import pooling_windows, resizing
from stgridpool.options import choice, fraction, number, whole_number, whole_numbers
from stgridpool.plan import Plan, Shape
from stgridpool.rows import Rows
from stgridpool.scorer import highest_per_group
from stgridpool.video_tokens import VideoTokens

WINDOWS = 3
"""Windows along a side of a frame, in each of which equally many local anchors are chosen."""


@dataclass(frozen=True)
class AOT(Compressor):
    """Choose anchors in each frame, let them gather the other tokens, pool, and gather over time by optimal transport.

    Local anchors have most attention in a shallow layer of the tower, as many in each of 3x3 windows, global ones in a
    deep layer. An anchor becomes nine parts of its mean with what transport brings it, at the cost of unlike directions
    and of distance, and one part of its mean with the tokens most like it. Then frames are pooled as by the checkpoint,
    and a new token stays if half of its weight comes from anchors. In each segment the tokens of the first frame stay,
    and so do those of later frames that transport spreads most evenly. The others are spread over those of the first,
    which come a second time, with what they have gathered.

    The tokens decide how many remain, so it meets no budget: pooling loses most anchors. The
    released code does not compile; this follows it with a colon added. Differences: tokens stand in order of place, in
    each frame at least the new token with most anchors stays, and segments may have any length.

    Source: AOT, arXiv 2603.01400, and its released code.

    Attributes:
        anchors: Anchors of a frame, 1 to 10^6; as many as it has tokens to gather nothing in it.
        global_share: Fraction of the anchors that are global, 0 to 1; not 0 with fewer than 9 anchors.
        pooling: "bilinear" or "average", with a stride of 2.
        keep: Fraction of each later frame that stays, above 0 and at most 1; None to gather nothing over time.
        segment: Frames of a segment, one number, of which the last may fall short, or one for each segment.
        shallow, deep: Layers of the tower, counted back from the last that runs; 5 and 24 of SigLIP's 26.

    Raises:
        ValueError: If an option is out of its range.
    """

    without_budget: ClassVar[str] = "pooling loses as many anchors as attention decides; set anchors and keep"
    needs_maps: ClassVar[bool] = True

    anchors: int = 126
    global_share: float = 0.5
    pooling: str = "bilinear"
    keep: float | None = 0.3
    segment: int | tuple[int, ...] = 4
    shallow: int = -21
    deep: int = -2

    def __post_init__(self) -> None:
        whole_number("anchors", self.anchors, 1, 1_000_000)
        object.__setattr__(self, "global_share", number("global_share", self.global_share, 0, 1))
        if self._num_local(self.anchors) == self.anchors < WINDOWS**2:
            raise ValueError(
                f"anchors must be at least {WINDOWS**2}, one for each window of a frame, or global_share above 0, "
                f"got anchors={self.anchors} and global_share={self.global_share:g}"
            )
        choice("pooling", self.pooling, ("bilinear", "average"))
        if self.keep is not None:
            object.__setattr__(self, "keep", fraction("keep", self.keep))
        if isinstance(self.segment, list | tuple):
            object.__setattr__(self, "segment", whole_numbers("segment", self.segment, 1, 100_000, 100_000))
        else:
            whole_number("segment", self.segment, 1, 100_000)
        whole_number("shallow", self.shallow, -1000, -1)
        whole_number("deep", self.deep, -1000, -1)

    @property
    def needs(self) -> frozenset[Need]:
        """Attention of the two layers."""
        return frozenset({AttentionReceived(self.shallow), AttentionReceived(self.deep)})

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Choose anchors, and gather in frames, in windows and over time."""
        maps, shape = tokens.maps().float().flatten(1, 2), tokens.shape
        device, total = maps.device, len(tokens)
        chosen = self._anchors(shape, *(evidence[AttentionReceived(layer)] for layer in (self.shallow, self.deep)))
        made = _gathered_in_frames(maps, shape, chosen)
        if self.pooling == "average":
            pattern = pooling_windows(shape[1:], (2, 2), (2, 2), (0, 0), False).pattern
        else:
            pattern = resizing(shape[1:], (-(-shape[1] // 2), -(-shape[2] // 2)), "linear")
        pooled = lay_out(pattern, shape, device)
        is_anchor = torch.zeros(total, device=device).index_fill(0, chosen.flatten(), 1)
        cover = pooled.apply(is_anchor[:, None]).view(shape[0], -1)
        stays = ((cover >= 0.5) | (F.one_hot(cover.argmax(1), cover.shape[1]) > 0)).flatten().nonzero().flatten()
        rows = pooled.rows.take(stays)
        if made:
            number = torch.arange(total, device=device)
            number[chosen.flatten()] = total + torch.arange(chosen.numel(), device=device)
            rows = rows.moved(number[rows.sources])
        plan = Plan(rows, total, pooled.anchor[stays], made)
        if self.keep is None:
            return plan
        values = plan.apply(maps.flatten(0, 1))
        sizes = torch.bincount(stays // cover.shape[1], minlength=shape[0]).tolist()
        mixed, places = gather_over_time(values, sizes, self._segments(shape[0]), self.keep)
        anchor, order = plan.anchor[places].sort(stable=True)
        mixed = mixed.moved(mixed.sources + total + sum(map(len, made)))
        return Plan(mixed.take(order), total, anchor, (*made, rows))

    def _segments(self, num_frames: int) -> list[int]:
        """Return the number of frames of each segment.

        Raises:
            ValueError: If those given are not all frames.
        """
        if isinstance(self.segment, int):
            return [min(self.segment, num_frames - first) for first in range(0, num_frames, self.segment)]
        if sum(self.segment) != num_frames:
            raise ValueError(
                f"segments of {self.segment} frames are not the {num_frames} of the video; give one number"
            )
        return list(self.segment)

    def _num_local(self, anchors: int) -> int:
        return int(anchors * (1 - self.global_share))

    def _anchors(self, shape: Shape, shallow: Tensor, deep: Tensor) -> Tensor:
        """Return the anchors (T, K) int64 among all tokens, ascending in each frame."""
        frames, height, width = shape
        area = height * width
        wanted = min(self.anchors, area)
        if wanted == area:
            return torch.arange(frames * area, device=deep.device).view(frames, -1)
        local = self._num_local(wanted)
        row, column = torch.arange(height) * WINDOWS // height, torch.arange(width) * WINDOWS // width
        window = (row[:, None] * WINDOWS + column).flatten()
        quota = torch.bincount(window, minlength=WINDOWS**2).clamp_max(local // WINDOWS**2).repeat(frames)
        group = (torch.arange(frames)[:, None] * WINDOWS**2 + window).flatten().to(deep.device)
        locals_ = highest_per_group(shallow, group, quota)
        left = deep.index_fill(0, locals_, -torch.inf).view(frames, -1)
        count = min(wanted - local, area - len(locals_) // frames)
        others = left.argsort(dim=1, descending=True, stable=True)[:, :count]
        others = others + torch.arange(frames, device=deep.device)[:, None] * area
        return torch.cat([locals_.view(frames, -1), others], 1).sort(dim=1).values


def _gathered_in_frames(maps: Tensor, shape: Shape, chosen: Tensor) -> tuple[Rows, ...]:
    """Let anchors gather the others of their frame: a row for each anchor, or nothing if there are no others.

    Args:
        maps: (T, P, D) float32.
        shape: (T, H, W).
        chosen: (T, K) int64, see `AOT._anchors`.
    """
    frames, area, _ = maps.shape
    if chosen.shape[1] == area:
        return ()
    everything = torch.arange(frames * area, device=maps.device)
    is_anchor = torch.zeros_like(everything, dtype=torch.bool).index_fill(0, chosen.flatten(), True)
    others = everything[~is_anchor].view(frames, -1)  # (T, M)
    down, across = (torch.linspace(0, 1, side, device=maps.device) for side in shape[1:])
    place = torch.stack(torch.meshgrid(down, across, indexing="ij"), -1).flatten(0, 1)  # (P, 2)
    apart = torch.cdist(place[others % area], place[chosen % area])  # (T, M, K)
    unit = F.normalize(maps, dim=-1).flatten(0, 1)
    similarity = unit[others] @ unit[chosen].mT
    moved = transport(1 - similarity + 0.5 * apart)
    nearest = F.one_hot(similarity.argmax(2), chosen.shape[1]).float()
    scales = [part / (1 + amount.sum(1)) for part, amount in ((0.9, moved), (0.1, nearest))]  # (T, K)
    weights = moved.mT * scales[0][:, :, None] + nearest.mT * scales[1][:, :, None]  # (T, K, M)
    weights = torch.cat([(scales[0] + scales[1])[:, :, None], weights], 2)
    sources = torch.cat([chosen[:, :, None], others[:, None].expand(-1, chosen.shape[1], -1)], 2)
    offsets = torch.arange(chosen.numel() + 1, device=maps.device) * sources.shape[2]
    return (Rows(sources.flatten(), offsets, weights.flatten()),)
