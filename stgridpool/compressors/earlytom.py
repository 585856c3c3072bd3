"""EarlyTom: frames are merged inside the vision tower, then tokens are selected, and once more inside the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.budget import share_equally
from stgridpool.compressor import Compressor, Step
from stgridpool.compressors.earlytom_frames import EarlyTomFrames, FrameMerging
from stgridpool.compressors.holitom.inner import HoliTomInner
from stgridpool.evidence import AttentionReceived, Evidence, Need
from stgridpool.frame_evidence import AllFramesLattice, FrameCosines, FrameSources
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import highest_per_group
from stgridpool.two_halves import TwoHalves
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class EarlyTom(FrameMerging, TwoHalves):
    """Merge like frames after three layers of the vision tower, select tokens of what remains, and merge inside.

    In the tower frames are merged as in `earlytom_frames`.

    Before the language model: the frames left are grouped once more. First and last frames, and groups of two,
    keep the tokens with the most attention in the last of those layers. The others are cut into as many runs of tokens
    as they may keep, and keep the token of each run with the most attention. Inside it: as `holitom`.

    Source: EarlyTom, arXiv 2605.30010. ``corrected``, the default, differs from its released code, which ``released``
    equals, in the frames that it merges, and in this: the code rounds in each frame; here the budget is exact, shared
    equally, but no more than the tokens of the frames left. A fraction is of the tokens of all frames that entered the
    tower. The code also garbles LLaVA-Video's newline tokens; the model inserts them here.

    Raises:
        ValueError: If an option is out of its range, or two budgets are given.
    """

    released_layer: ClassVar[tuple[int, int]] = (18, 28)

    def __post_init__(self) -> None:
        TwoHalves.__post_init__(self)
        FrameMerging.__post_init__(self)

    @property
    def frames(self) -> EarlyTomFrames:
        """The half inside the vision tower."""
        return EarlyTomFrames(**{field.name: getattr(self, field.name) for field in fields(FrameMerging)})

    @property
    def front_needs(self) -> frozenset[Need]:
        """Attention of the last layer behind which frames are merged, and what that left behind."""
        return frozenset({AttentionReceived(self.layers[-1]), FrameSources(), FrameCosines(), AllFramesLattice()})

    def inner(self, layer: int) -> Compressor:
        """Merge what the last token of the prompt hardly attends to."""
        return HoliTomInner(self.inner_retention, layer=layer, is_running=self.preset == "released")

    def steps(self) -> tuple[Step, ...]:
        """Return where it acts: after layers of the vision tower, and where its other halves do."""
        return (*self.frames.steps(), *super().steps())

    def planned_front(self, shape: Shape, total: int | None) -> None:
        """Return None: the video decides how many frames are left."""

    def plan_front(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Select tokens of the frames left."""
        frames, area = tokens.shape[0], math.prod(tokens.shape[1:])
        is_middle = torch.zeros(frames, dtype=torch.bool)
        for first, end in self.frames.groups(evidence[FrameCosines()].cpu().double()):
            is_middle[first + 1 : end - 1] = end - first > 2
        shares = self._shares(tokens, int(evidence[AllFramesLattice()][0]), is_middle)
        run, quota = _runs(shares, is_middle, area)
        attention = evidence[AttentionReceived(self.layers[-1])]
        tokens.maps()  # they must fill their lattice
        return Plan.keep(highest_per_group(attention, run.to(attention.device), quota), len(tokens))

    def _shares(self, tokens: VideoTokens, entered: int, is_middle: Tensor) -> list[int]:
        """Return how many tokens of each frame to keep, where `entered` would be if all had left the tower."""
        sizes, (frames, *sides) = tokens.frame_sizes(), tokens.shape
        count = self.budget.count((entered, *tokens.shape[1:])) or 1
        if self.preset == "released":
            asked, area = self.retention or count / (entered * math.prod(sides)), math.prod(sides)
            part = area * min(asked / (frames / entered), 1.0)
            return [max(1, round(part)) if middle else math.ceil(part) for middle in is_middle.tolist()]
        shares: list[int] = share_equally(min(count, len(tokens)), sizes).tolist()
        return shares


def _runs(shares: list[int], is_middle: Tensor, area: int) -> tuple[Tensor, Tensor]:
    """Return the run (N,) that each token belongs to, and how many to keep of each, (R,); both int64 on the CPU.

    Args:
        shares: How many tokens of each frame to keep.
        is_middle: (T,) bool, frames of which each token kept has a run of its own.
        area: Tokens of a frame.
    """
    runs, quota = [], list[int]()
    for share, splits in zip(shares, is_middle.tolist(), strict=True):
        place = torch.arange(area)
        if splits and share:
            longer, size = area % share, area // share
            place = torch.where(place < longer * (size + 1), place // (size + 1), (place - longer) // size)
        else:
            place = torch.zeros_like(place)
        runs.append(place + len(quota))
        quota += [1] * share if splits and share else [share]
    return torch.cat(runs), torch.tensor(quota)
