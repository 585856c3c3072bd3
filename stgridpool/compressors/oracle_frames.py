"""Frames that a file lists: an upper bound for methods that choose frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stgridpool.compressor import TOKENS, Compressor, Step
from stgridpool.evidence import Evidence, Need
from stgridpool.listed_frames import ListedFrames
from stgridpool.options import text
from stgridpool.plan import Plan
from stgridpool.video_tokens import VideoTokens


@dataclass(frozen=True)
class OracleFrames(Compressor):
    """Keep all tokens of the frames that a file lists for the video, and none of the others.

    With the frames that hold the answer, it says how much could be gained by choosing frames well. The list is the
    method, so there is no budget to meet. It must see every frame: after a checkpoint's own pooling over time, such as
    NVILA's, use ``none+oracle_frames``, which does without that pooling. The record of a run has a digest of the file,
    and a resumed run asks all questions again after the list has changed.

    Attributes:
        file: Path of a JSON file ``{"v1.mp4": [0, 12, 13]}``, see `ListedFrames`.

    Raises:
        ValueError: If `file` is empty.
    """

    without_budget: ClassVar[str] = "the list is the method"
    needs_maps: ClassVar[bool] = True

    file: str = "oracle_frames.json"

    def __post_init__(self) -> None:
        text("file", self.file)

    @property
    def needs(self) -> frozenset[Need]:
        """The frames that the file lists."""
        return frozenset({ListedFrames(self.file)})

    def steps(self) -> tuple[Step, ...]:
        """Return where it acts: after the checkpoint's own pooling."""
        return (Step(self, TOKENS),)

    def plan(self, tokens: VideoTokens, evidence: Evidence) -> Plan:
        """Keep the listed frames.

        Raises:
            ValueError: If the number of frames is not that of the video as it was read, or none is listed.
        """
        (marks,) = evidence.values()  # (T,)
        maps = tokens.maps()
        if len(marks) != len(maps):
            raise ValueError(
                f"oracle_frames counts the {len(marks)} frames of the video, but {len(maps)} remain: put it before "
                "methods that change their number, and leave out those that act on frames or in the vision tower; if "
                "it is the checkpoint's own pooling that changes it, as NVILA's does, use none+oracle_frames"
            )
        is_kept = (marks > 0).repeat_interleave(tokens.shape[1] * tokens.shape[2])
        if not bool(is_kept.any()):
            raise ValueError(f"{self.file} must list at least one frame of the video")
        return Plan.keep(is_kept.nonzero().flatten(), len(tokens))
