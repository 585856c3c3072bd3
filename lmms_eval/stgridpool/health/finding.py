"""Finding: one thing that was checked, and its state."""

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        subject: What was checked.
        state: "ok"; "warning": a run works, but perhaps not as expected; "problem": it would fail.
        text: What was found.
        repair: What to do about it; empty if it is ok.
    """

    subject: str
    state: str
    text: str
    repair: str = ""
