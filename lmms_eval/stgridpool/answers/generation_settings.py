"""Settings for generating an answer: a task's ``generation_kwargs``, translated for transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass(frozen=True)
class GenerationSettings:
    """Settings for generating an answer.

    Attributes:
        max_new_tokens: Maximum length of the answer, in tokens.
        do_sample: Whether to sample instead of taking the best token.
        temperature: Sampling temperature, above 0.
        top_p: Probability mass that sampling draws from, 0 to 1; passed on as the stock models do. The checkpoint's
            other sampling settings, such as top_k, stay in effect.
        num_beams: Number of beams.
        until: Texts that end the answer; they are not part of it.
    """

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float | None = None
    num_beams: int = 1
    until: tuple[str, ...] = ()

    @classmethod
    def from_task(cls, gen_kwargs: Mapping[str, Any]) -> "GenerationSettings":
        """Read a task's ``generation_kwargs`` without changing them.

        Decoding is greedy if the temperature is 0, or if neither a temperature nor ``do_sample`` is given. Other keys
        are ignored because lmms-eval's tasks write them for several models.
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
        """Return arguments for the model's ``generate``; greedy decoding resets the checkpoint's sampling settings."""
        if self.do_sample:
            sampling: dict[str, Any] = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
        else:
            sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return sampling | {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}
