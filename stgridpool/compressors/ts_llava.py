"""TS-LLaVA: a thumbnail of a few frames, followed by tokens sampled from all frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from stgridpool.evidence import Evidence
from stgridpool.frames.layout import resident
from stgridpool.frames.mosaics import mosaic
from stgridpool.options import LONGEST_SIDE, whole_number
from stgridpool.plan import Plan
from stgridpool.scorer import Budgeted
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class TSLLaVA(Budgeted):
    """Make a mosaic of a few frames, as large as a frame, and sample the rest of the budget evenly from all tokens.

    The thumbnail holds frames ``floor(i T / n)`` of T in the squarest grid, each resized by area, see
    `stgridpool.frames.mosaics`; of fewer frames than `thumbnail_frames` all are in it. It counts as the first frame.
    Of S samples, sample i is token ``floor((2 i + 1) N / (2 S))`` of the N tokens in raster order, the middle one of
    each of S equal blocks. A budget of no more tokens than a frame has leaves no room for the thumbnail: then all are
    samples.

    In the source the thumbnail is a picture that goes through the vision tower; here it is made of encoded tokens, as
    pyramid temporal gridding makes its mosaics.

    Source: TS-LLaVA, arXiv 2411.11066.

    Attributes:
        thumbnail_frames: n, 1 to 256; published are 4, 6 and 8.

    Raises:
        ValueError: If an option is out of its range.
    """

    needs_maps: ClassVar[bool] = True
    num_pathways: ClassVar[int] = 2

    thumbnail_frames: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("thumbnail_frames", self.thumbnail_frames, 1, LONGEST_SIDE)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Put the samples after the thumbnail."""
        device, (frames, height, width), total = tokens.maps().device, tokens.shape, len(tokens)
        count, area = self.count(tokens), height * width
        has_thumbnail = count > area
        samples = count - area if has_thumbnail else count
        middle = (2 * torch.arange(samples, device=device) + 1) * total // (2 * samples)
        if not has_thumbnail:
            return Plan.keep(middle, total)
        size = min(self.thumbnail_frames, frames)
        rows = resident(mosaic((height, width), size), device)
        shown = torch.arange(size, device=device) * frames // size
        sources = shown[rows.sources // area] * area + rows.sources % area
        place = torch.arange(area, device=device)
        return Plan.concat([Plan(rows.moved(sources), total, place), Plan.keep(middle, total)])
