"""An answer and the facts about it, which lmms-eval writes to its samples file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from stgridpool.retention import VisualCounts, fractions

Answer = str | tuple[float, bool] | list[str]
"""A text; a loss, and whether the scored text is the greedy one; or the texts of several rounds."""


@dataclass
class SampleFacts(TokenCounts):
    """Facts of one answer; lmms-eval writes them as the sample's ``token_counts``, for every rank.

    Attributes:
        input_tokens: Tokens that entered the language model: text, visual and newline tokens.
        output_tokens: Tokens generated.
        frames: Frames of the question's videos.
        visual_tokens: Tokens of its videos, without newline tokens.
        newline_tokens: Newline tokens of its videos.
        full_tokens: Visual tokens that the checkpoint's own pooling would produce, without newline tokens.
        full_newlines: Newline tokens that the checkpoint's own pooling would add.
        kept_tokens: Tokens kept, by each definition of `stgridpool.retention`.
        compressor: The compressor that reduced the tokens; empty if there was nothing to reduce.
        failure: Why there is no answer, or None.
        is_blind: Whether the question was answered although its task showed nothing.
        seconds: Seconds by stage. Questions of a batch share its time evenly; the time for a video that several batches
            share counts for the first batch.
        answered_together: Number of questions in the batch, including this one.
        damaged_videos: Number of signs of damage by path, for each damaged video.
        frames_sha256: Digest of the indices of its videos' frames, see `frames_digest`; empty without a video.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    frames: int = 0
    visual_tokens: int = 0
    newline_tokens: int = 0
    full_tokens: int = 0
    full_newlines: int = 0
    kept_tokens: dict[str, float] = field(default_factory=dict)
    compressor: str = ""
    failure: str | None = None
    is_blind: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    answered_together: int = 1
    damaged_videos: dict[str, int] = field(default_factory=dict)
    frames_sha256: str = ""

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "SampleFacts":
        """Read facts that `asdict` wrote, perhaps in another version; unknown entries are dropped.

        Raises:
            TypeError: If `facts` is not a mapping, or an entry has the wrong type.
        """
        if not isinstance(facts, Mapping):
            raise TypeError(f"facts cannot be {facts!r}")
        known = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        for name, default in asdict(cls()).items():
            value = known.get(name, default)
            kinds = (type(default),) if default is not None else (int, str, type(None))
            numbers = value.values() if isinstance(value, dict) else ()
            if type(value) not in kinds or not all(isinstance(number, int | float) for number in numbers):
                raise TypeError(f"{name} cannot be {value!r}")
        return cls(**known)

    def add_question(self, num_prompt: int, num_generated: int, counts: VisualCounts | None) -> None:
        """Add the tokens of one question and its answer; `counts` are None without a video."""
        self.input_tokens = (self.input_tokens or 0) + num_prompt
        self.output_tokens = (self.output_tokens or 0) + num_generated
        if counts is not None:
            self.full_tokens += counts.full
            self.full_newlines += counts.full_newlines
            add(self.kept_tokens, counts.kept())

    def first_token_seconds(self) -> dict[str, float]:
        """Compute the time to the first token: in the language model alone, and with tower, projector and compressor.

        Neither includes reading the video, which happens in advance. All questions of a batch get their first token at
        the same time, and only the first batch about a video pays for the shared prefix. To measure the time that
        papers report, set share_prefix to False.
        """
        if self.failure is not None or "prefill" not in self.seconds:
            return {}
        spent = [self.seconds.get(stage, 0.0) for stage in ("prefill", "vision", "projector", "compress")]
        return {
            "language_model": spent[0] * self.answered_together,
            "with_vision_tower": sum(spent) * self.answered_together,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all facts, and four that follow from them."""
        return {
            **asdict(self),
            "first_token_seconds": self.first_token_seconds(),
            "retention": fractions(self.kept_tokens, self.full_tokens, self.full_newlines),
            "failed": self.failure is not None,
            "tokens_per_frame": self.visual_tokens / self.frames if self.frames else None,
        }


@dataclass(frozen=True)
class Answered:
    """An answer with its facts.

    Attributes:
        answer: The answer.
        facts: The facts.
    """

    answer: Answer
    facts: SampleFacts

    def for_lmms_eval(self) -> GenerationResult:
        """Wrap the answer; lmms-eval unwraps every kind of answer, although it declares texts only."""
        return GenerationResult(self.answer, self.facts)  # type: ignore[arg-type]


def add(sums: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Add numbers by name to `sums`."""
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + value
