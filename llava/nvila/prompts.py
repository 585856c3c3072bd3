"""NvilaPrompts: the text around a question, as NVILA was trained: parts without separators, in one turn of the user.

Source: https://github.com/NVlabs/VILA (April 2025), `generate_content`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.nvila.tokenizer import VIDEO_TOKEN, rendered
from llava.prompts import PromptBuilder, time_instruction
from stgridpool.model import ClipTimes, Visual

MEDIA_TOKENS = (DEFAULT_IMAGE_TOKEN, VIDEO_TOKEN)


@dataclass(frozen=True)
class NvilaPrompts(PromptBuilder):
    """A builder of prompts for NVILA; for attributes that are not listed see `PromptBuilder`.

    Attributes:
        template: Name of a conversation template, or empty for the tokenizer's chat template.
    """

    def turn(self, parts: Sequence[str | Visual]) -> str:
        """Write the user's turn: texts, and a placeholder for each visual; a line break follows an image in tiles.

        A media token in a text is deleted, and that text is stripped; so is the whole turn.
        """
        return "".join(_cleared(part) if isinstance(part, str) else _placeholder(part) for part in parts).strip()

    def asked(self, context: str, visuals: Sequence[Visual], clips: Sequence[ClipTimes]) -> str:
        """Write the user's turn: all visuals, then the optional time instruction and the task's text."""
        if self.add_time_instruction:
            context = "\n".join([*map(time_instruction, clips), context])
        return self.turn([*visuals, context])

    def prompt(self, question: str, answer: str | None = None) -> str:
        """Write the whole prompt, open for the model to answer, or closed after `answer`."""
        if self.template:
            return super().prompt(question, answer)
        return rendered(self.tokenizer, question, answer)

    @property
    def stop_text(self) -> str:
        """The text with which the template closes an answer."""
        if self.template:
            return super().stop_text
        marker = "ANSWER"
        return self.prompt("QUESTION", marker).rpartition(marker)[2].strip()


def _placeholder(visual: Visual) -> str:
    return DEFAULT_IMAGE_TOKEN + ("\n" if getattr(visual, "is_in_tiles", False) else "")


def _cleared(text: str) -> str:
    if not any(token in text for token in MEDIA_TOKENS):
        return text
    return reduce(lambda left, token: left.replace(token, ""), MEDIA_TOKENS, text).strip()
