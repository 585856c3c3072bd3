"""The facts of one answer, which lmms-eval writes into its samples file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lmms_eval.api.instance import TokenCounts

from stgridpool.retention import VisualCounts, fractions


@dataclass
class SampleFacts(TokenCounts):
    """Facts of one answer; lmms-eval writes them as the sample's ``token_counts``, for every process.

    Attributes:
        input_tokens: Tokens that entered the language model: text, visual and newline tokens.
        output_tokens: Tokens generated.
        frames: Video frames that were encoded for the question (or for its neighbour about the same video).
        visual_tokens: Tokens of its videos, newline tokens apart.
        newline_tokens: Newline tokens.
        full_tokens: What the checkpoint's own pooling would give, newline tokens apart.
        full_newlines: Newline tokens that would come with it.
        kept_tokens: Tokens left, by each definition of `stgridpool.retention`.
        compressor: What reduced them; empty where there was nothing to reduce.
        failure: Why there is no answer, or None.
        is_blind: Whether it was answered though its task shows nothing with it.
        seconds: Seconds by stage. What a batch of questions shares is divided among them; a video that several batches
            share is counted for the first.
        answered_together: Questions of the batch that this one was answered in.
        damaged_videos: Signs of damage by path, of those of its videos that gave any.
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

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "SampleFacts":
        """Facts as `asdict` gave them, perhaps in another version: unknown ones are left out.

        Raises:
            TypeError: If they are no mapping, or one is of another type.
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
        """Time to the first token: in the language model alone, and with vision tower, projector and compressor.

        Reading the video, which runs ahead, is in neither. Of a prefix that questions share only the first batch of
        them pays, and a batch gets its first tokens at the same time; for times as papers give them, set share_prefix
        to False.
        """
        if self.failure is not None or "prefill" not in self.seconds:
            return {}
        spent = [self.seconds.get(stage, 0.0) for stage in ("prefill", "vision", "projector", "compress")]
        return {
            "language_model": spent[0] * self.answered_together,
            "with_vision_tower": sum(spent) * self.answered_together,
        }

    def to_dict(self) -> dict[str, Any]:
        """All facts, and four that follow from them."""
        return {
            **asdict(self),
            "first_token_seconds": self.first_token_seconds(),
            "retention": fractions(self.kept_tokens, self.full_tokens, self.full_newlines),
            "failed": self.failure is not None,
            "tokens_per_frame": self.visual_tokens / self.frames if self.frames else None,
        }


def add(sums: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Add numbers by name to `sums`."""
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + value
