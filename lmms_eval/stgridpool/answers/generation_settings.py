"""How an answer is generated: what a task asks for, and what transformers takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated.

    Attributes:
        max_new_tokens: Most tokens of the answer.
        do_sample: Sample instead of taking the best token.
        temperature: Of sampling, above 0.
        top_p: Share of the probability that sampling draws from, 0 to 1; passed on as the stock models pass it. Of a
            checkpoint's other sampling settings, such as top_k, sampling keeps what they say.
        num_beams: Beams searched.
        until: Texts before which the answer ends.
    """

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float | None = None
    num_beams: int = 1
    until: tuple[str, ...] = ()

    @classmethod
    def from_task(cls, gen_kwargs: Mapping[str, Any]) -> "GenerationSettings":
        """Read a task's ``generation_kwargs``, which are left as they are.

        A temperature of 0, or none without ``do_sample``, is greedy. Keys that are not generation settings here are
        ignored, as lmms-eval's tasks address several models with them.
        """
        temperature = gen_kwargs.get("temperature")
        do_sample = gen_kwargs.get("do_sample")
        if do_sample is None:
            do_sample = temperature is not None and temperature > 0
        until = gen_kwargs.get("until") or ()
        return cls(
            max_new_tokens=int(gen_kwargs.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS),
            do_sample=bool(do_sample) and temperature != 0,
            temperature=1.0 if temperature is None else float(temperature),
            top_p=gen_kwargs.get("top_p"),
            num_beams=int(gen_kwargs.get("num_beams") or 1),
            until=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
        )

    def for_model(self) -> dict[str, Any]:
        """Arguments of the model's ``generate``; greedy ones undo the checkpoint's own sampling settings."""
        if self.do_sample:
            sampling: dict[str, Any] = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
        else:
            sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return sampling | {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}
