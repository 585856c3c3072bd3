"""AllFrames: a method whose budget counts all frames that entered the vision tower, of which steps in it left fewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from stgridpool.compressor import Compressor, EncoderLayer, Step
from stgridpool.evidence import Evidence, Need
from stgridpool.frame_evidence import FrameSources
from stgridpool.plan import Plan
from stgridpool.scorer import Budgeted
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class AllFrames(Compressor):
    """Let a method leave what its budget says of all frames that entered the tower, or all tokens if they are fewer.

    Attributes:
        method: The method, which sees the frames left.
    """

    needs_maps: ClassVar[bool] = False

    method: Budgeted

    @property
    def needs(self) -> frozenset[Need]:
        """Return the needs of the method, and which frames entered the tower."""
        return self.method.needs | {FrameSources()}

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Turn the budget into a number of tokens, and let the method meet it."""
        entered = evidence[FrameSources()].shape[1]
        frames, height, width = tokens.shape
        count = self.method.budget.count((entered, height, width), len(tokens) * entered // frames)
        known = {need: evidence[need] for need in self.method.needs}
        if count is None:
            return self.method.plan(tokens, known)
        at_most = min(count, len(tokens))
        method = replace(self.method, retention=None, tokens=at_most, tokens_per_frame=None)
        return method.plan(tokens, known)


def count_all_frames(methods: Sequence[Compressor]) -> tuple[Step, ...]:
    """Return the steps of methods; the first budget after steps of another method in the tower counts all frames."""
    steps: list[Step] = []
    lacks_frames = False  # of those that entered the tower
    for method in methods:
        first, *others = method.steps()
        if lacks_frames and isinstance(first.compressor, Budgeted) and not first.is_inside:
            first, lacks_frames = replace(first, compressor=AllFrames(first.compressor)), False
        steps += [first, *others]
        lacks_frames = lacks_frames or isinstance(steps[-1].place, EncoderLayer)
    return tuple(steps)
