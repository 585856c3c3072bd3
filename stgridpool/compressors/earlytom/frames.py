"""EarlyTom's first half: like frames are merged in pairs inside the vision tower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from stgridpool.algorithms.frame_cosines import frame_cosines
from stgridpool.compressor import Compressor
from stgridpool.evidence import Evidence
from stgridpool.frames.groups import over_time
from stgridpool.frames.patterns import every_token
from stgridpool.plan import Plan
from stgridpool.rows import Rows
from stgridpool.video_tokens import VideoTokens

Group = tuple[int, int]
"""First frame of a group, and the one behind its last."""


@dataclass(frozen=True)
class EarlyTomFrames(Compressor):
    """Merge frames in the middle of each group of like ones, see `EarlyTom` for the rule and the options."""

    threshold: float
    longest: int
    momentum: float
    mixing: str
    is_released: bool

    def groups(self, cosines: Tensor) -> list[Group]:
        """Group the frames whose cosines (T, T) are given on the CPU."""
        cuts, likeness = [0], 1.0
        for frame in range(1, len(cosines)):
            likeness = self.momentum * float(cosines[cuts[-1], frame]) + (1 - self.momentum) * likeness
            if likeness < self.threshold or frame - cuts[-1] + 1 >= self.longest:
                cuts.append(frame)
                likeness = 1.0
        return list(zip(cuts, [*cuts[1:], len(cosines)], strict=True))

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Group the frames and merge some."""
        del evidence
        maps = tokens.maps()
        cosines = frame_cosines(maps.flatten(1, 2)).cpu().double()
        left = [weights for group in self.groups(cosines) for weights in self._left(group, cosines)]
        device = maps.device
        row = torch.tensor([number for number, weights in enumerate(left) for _ in weights], device=device)
        frame = torch.tensor([frame for weights in left for frame in weights], device=device)
        weight = torch.tensor([weight for weights in left for weight in weights.values()], device=device)
        rows = Rows.of_entries(row, frame, weight, len(left))
        return over_time(rows, every_token(tokens.shape[1:]), tokens.shape)

    def _left(self, group: Group, cosines: Tensor) -> Iterator[dict[int, float]]:
        """Yield the frames that a group becomes, each by the weights of its frames."""
        first, last = group[0], group[1] - 1
        yield {first: 1.0}
        if last - first > 2 and self.mixing == "mean":
            yield dict.fromkeys(range(first + 1, last), 1 / (last - first - 1))
        elif last - first > 2:
            yield from self._pairs(list(range(first + 1, last)), cosines, float(cosines[first, last]))
        elif last - first == 2:
            yield {first + 1: 1.0}
        if last > first:
            yield {last: 1.0}

    def _pairs(self, middle: list[int], cosines: Tensor, limit: float) -> Iterator[dict[int, float]]:
        """Yield the `middle` frames, of which neighbours more alike than `limit` and than the next two are merged."""
        alike = [float(cosines[one, other]) for one, other in pairwise(middle)]
        place = 0
        while place < len(alike):
            is_last = place == len(alike) - 1
            following = 0.0 if is_last else alike[place + 1]
            if alike[place] > limit and (is_last or alike[place] > following):
                weight = self._weight(alike[place], following, is_last)
                yield {middle[place]: weight, middle[place + 1]: 1 - weight} if weight != 1 else {middle[place]: 1.0}
                place += 2
            else:
                yield {middle[place]: 1.0}
                place += 1
        if place == len(alike) and not self.is_released:
            yield {middle[place]: 1.0}

    def _weight(self, alike: float, following: float, is_last: bool) -> float:
        """Return the weight of the first frame of a pair."""
        if self.is_released:
            return alike / (alike + following) if following else 1.0
        if is_last:
            return 0.5
        return alike / (alike + following) if following > 0 else 1.0
