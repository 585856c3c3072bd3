"""Questions without an answer: why, how many, and when they are too many for the run to count."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llava.video import VideoReadError
from lmms_eval_stgridpool.run.too_many import are_too_many
from stgridpool.finite import NonFiniteError

UNREADABLE = "unreadable video"
NOTHING_SHOWN = "nothing shown"
NOT_FINITE = "NaN or infinity"
_MOST_NAMES = 10  # of damaged videos in one message


class UnansweredError(Exception):
    """A question cannot be answered, and the run is not to blame.

    Args:
        kind: The reason as the record of the run counts it, such as `NOTHING_SHOWN`.
        reason: The reason in words.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


Unanswered = VideoReadError | NonFiniteError | UnansweredError
UNANSWERED = (VideoReadError, NonFiniteError, UnansweredError)
"""Exceptions that leave a question unanswered. Any other exception ends the run."""


def kind_of(error: Unanswered) -> str:
    """Return the reason as the record of the run counts it."""
    if isinstance(error, UnansweredError):
        return error.kind
    return NOT_FINITE if isinstance(error, NonFiniteError) else UNREADABLE


@dataclass(frozen=True)
class Verdict:
    """Whether a run answered enough of its questions for its score to count.

    Attributes:
        asked: Number of questions of the run, including those that an earlier run has answered.
        kinds: Number of questions without an answer, by reason.
        max_failed: Largest fraction of questions that may stay unanswered, 0 to 1.
        damaged_videos: Number of signs of damage by path, for videos whose questions were answered.
    """

    asked: int
    kinds: Mapping[str, int]
    max_failed: float
    damaged_videos: Mapping[str, int] = field(default_factory=dict)

    @property
    def damage(self) -> str:
        """A sentence that names the damaged videos."""
        names = ", ".join(sorted(self.damaged_videos)[:_MOST_NAMES])
        more = ", ..." * (len(self.damaged_videos) > _MOST_NAMES)
        return (
            f"{len(self.damaged_videos)} videos are damaged; questions about them were answered from what a player "
            f"shows (damaged_videos=fail leaves them unanswered): {names}{more}"
        )

    @property
    def failed(self) -> int:
        """Number of questions without an answer."""
        return sum(self.kinds.values())

    @property
    def run_failed(self) -> bool:
        """Whether too many questions are unanswered; a run that answered none has failed even if `max_failed` is 1."""
        return are_too_many(self.failed, self.asked, self.max_failed)

    def __str__(self) -> str:
        """Return a sentence that says how many questions could not be answered, and why."""
        reasons = ", ".join(f"{kind}: {number}" for kind, number in sorted(self.kinds.items()))
        sentence = f"{self.failed} of {self.asked} questions could not be answered ({reasons})"
        if not self.run_failed:
            return sentence
        if self.failed == self.asked:
            return f"the run failed: {sentence}"
        return f"the run failed: {sentence}, more than max_failed={self.max_failed:g} allows"
