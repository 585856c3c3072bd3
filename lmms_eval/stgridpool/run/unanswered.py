"""Questions that get no answer while the run goes on: why, how many, and when they are too many."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llava.video import VideoReadError
from stgridpool.finite import NonFiniteError

UNREADABLE = "unreadable video"
NOTHING_SHOWN = "nothing shown"
NOT_FINITE = "NaN or infinity"
_MOST_NAMES = 10  # of damaged videos in one message


class UnansweredError(Exception):
    """A question that cannot be answered, for a reason that is no fault of the run.

    Args:
        kind: What the record of the run counts it as, such as `NOTHING_SHOWN`.
        reason: Why, in words.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


UNANSWERED = (VideoReadError, NonFiniteError, UnansweredError)
"""What leaves a question without an answer. Any other exception ends the run."""


def kind_of(error: VideoReadError | NonFiniteError | UnansweredError) -> str:
    """What the record of the run counts an unanswered question as."""
    if isinstance(error, UnansweredError):
        return error.kind
    return NOT_FINITE if isinstance(error, NonFiniteError) else UNREADABLE


@dataclass(frozen=True)
class Verdict:
    """Whether a run answered enough of its questions for its score to count.

    Attributes:
        asked: Questions of the run, those included that an earlier run has answered.
        kinds: Questions without an answer, by reason.
        max_failed: Largest fraction of them that a run may have, 0 to 1.
        damaged_videos: Signs of damage by path, of videos that were answered about nevertheless.
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
            f"{len(self.damaged_videos)} videos are damaged and were answered about as a player shows them "
            f"(damaged_videos=fail leaves them unanswered): {names}{more}"
        )

    @property
    def failed(self) -> int:
        """Questions without an answer."""
        return sum(self.kinds.values())

    @property
    def run_failed(self) -> bool:
        """Whether they are too many; a run that answered nothing has no score, whatever `max_failed` allows."""
        return self.failed > self.max_failed * self.asked or 0 < self.asked == self.failed

    def __str__(self) -> str:
        """Say it in a sentence: how many questions could not be answered, and why."""
        reasons = ", ".join(f"{kind}: {number}" for kind, number in sorted(self.kinds.items()))
        sentence = f"{self.failed} of {self.asked} questions could not be answered ({reasons})"
        if not self.run_failed:
            return sentence
        if self.failed == self.asked:
            return f"the run failed: {sentence}"
        return f"the run failed: {sentence}, more than max_failed={self.max_failed:g} allows"
