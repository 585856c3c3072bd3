"""The variants that ``eval`` compares: the same questions, answered with more and more work shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """Which improvements are on."""

    name: str
    encode_once: bool = False  # otherwise every question has its own file, so that nothing can be shared
    share_prefix: bool = False
    batch: bool = False
    ahead: bool = False


VARIANTS = (
    Variant("plain loop"),
    Variant("decoded ahead", ahead=True),
    Variant("encoded once", encode_once=True),
    Variant("encoded, prefilled once", encode_once=True, share_prefix=True),
    Variant("the same, as a batch", encode_once=True, share_prefix=True, batch=True),
    Variant("all together", encode_once=True, share_prefix=True, batch=True, ahead=True),
)


@dataclass(frozen=True)
class Question:
    """A question about a video."""

    video: Path
    text: str


@dataclass(frozen=True)
class Measured:
    """The cost of answering the questions.

    Attributes:
        variant: Which improvements were on.
        seconds: Of all questions together.
        stages: Seconds by stage, of all questions; decoding overlaps with the others where it runs ahead.
        answers: Texts, in the order of the questions.
        visual_tokens: Tokens of a video that enter the language model, newline tokens included.
        prompt_tokens: Tokens of the longest prompt.
        peak: Peak memory in bytes, None where it cannot be read.
    """

    variant: Variant
    seconds: float
    stages: dict[str, float]
    answers: list[str]
    visual_tokens: int
    prompt_tokens: int
    peak: int | None
