"""EarlyTom's first half: like frames are merged in pairs inside the vision tower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from stgridpool.algorithms.frame_cosines import frame_cosines
from stgridpool.compressor import Compressor, EncoderLayer, Step
from stgridpool.evidence import MOST_LAYERS, Evidence
from stgridpool.frames.groups import over_time
from stgridpool.frames.patterns import every_token
from stgridpool.options import choice, number, whole_number, whole_numbers
from stgridpool.plan import Plan
from stgridpool.rows import Rows
from stgridpool.video_tokens import VideoTokens

Group = tuple[int, int]
"""First frame of a group, and the one after its last."""


@dataclass(frozen=True)
class FrameMerging:
    """The options of `EarlyTomFrames`, which `EarlyTom` has, too.

    Attributes:
        preset: "corrected" or "released", see above.
        layers: Layers of the vision tower after which frames are merged, ascending, counted back from the one that is
            used as features, see `EncoderLayer`; the defaults are 6, 21 and 23 of 26. At least one.
        threshold: Smallest running mean at which a group of like frames continues, -1 to 1; published: 0.3 to 0.8.
        longest: Maximum number of frames in a group, 2 to 1000; published: 6.
        momentum: Part of the newest cosine in the running mean, 0 to 1.
        mixing: "pairs" merges neighbours, as above, "mean" the middle frames of a group.

    Raises:
        ValueError: If an option is out of its range.
    """

    PRESETS: ClassVar[tuple[str, ...]] = ("corrected", "released")

    preset: str = "corrected"
    layers: tuple[int, ...] = (-20, -5, -3)
    threshold: float = 0.6
    longest: int = 8
    momentum: float = 0.9
    mixing: str = "pairs"

    def __post_init__(self) -> None:
        choice("preset", self.preset, self.PRESETS)
        layers = whole_numbers("layers", self.layers, -MOST_LAYERS, -1, MOST_LAYERS)
        if not layers or list(layers) != sorted(set(layers)):
            raise ValueError(f"layers must be ascending, at least one, got {self.layers}")
        object.__setattr__(self, "layers", layers)
        number("threshold", self.threshold, -1, 1)
        whole_number("longest", self.longest, 2, 1000)
        number("momentum", self.momentum, 0, 1)
        choice("mixing", self.mixing, ("pairs", "mean"))


@dataclass(frozen=True)
class EarlyTomFrames(FrameMerging, Compressor):
    """Merge like frames after layers of the vision tower, so that later layers run on fewer of them.

    A group begins with frame s and continues while a running mean, ``momentum`` times the mean cosine of the tokens of
    s and of the next frame plus the rest of it so far, is at least `threshold`, for at most `longest` - 1 frames. Its
    first and last frame stay. Neighbours in the middle whose cosine c exceeds that of the first and last frame, and the
    cosine d of the next two, become one: ``c / (c + d)`` of the first, the rest of the second.

    Alone, the half of `earlytom` that can be joined with other methods: ``earlytom_frames+st_gridpool+fastv``. The
    video decides how many frames are left, so there is no budget to meet.

    Source: EarlyTom, arXiv 2605.30010. ``corrected``, the default, differs from its released code, which ``released``
    equals: the code loses the last middle frame of every group of four or more, since nothing follows; here it stays,
    or makes an even pair. Threshold, layers and lengths were tuned for each benchmark and rate; the defaults are those
    of the code.

    Raises:
        ValueError: If an option is out of its range.
    """

    without_budget: ClassVar[str] = "the video decides how many frames are left; use earlytom, or join another method"

    def steps(self) -> tuple[Step, ...]:
        """Return where it acts: after layers of the vision tower."""
        return tuple(Step(self, EncoderLayer(layer)) for layer in self.layers)

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
        if place == len(alike) and self.preset != "released":
            yield {middle[place]: 1.0}

    def _weight(self, alike: float, following: float, is_last: bool) -> float:
        """Return the weight of the first frame of a pair."""
        if self.preset == "released":
            return alike / (alike + following) if following else 1.0
        if is_last:
            return 0.5
        return alike / (alike + following) if following > 0 else 1.0
