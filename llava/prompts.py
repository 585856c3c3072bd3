"""PromptBuilder: the text around a question, and its token ids."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import SeparatorStyle, conv_templates
from llava.mm_utils import tokenizer_image_token
from stgridpool.model import ClipTimes


@dataclass(frozen=True)
class PromptBuilder:
    """A builder of prompts for one model.

    Attributes:
        template: Name of the conversation template.
        tokenizer: The model's tokenizer.
        use_start_end: Whether to put the model's start and end tokens around each placeholder.
        add_time_instruction: Whether to state the length of each video and the times of its frames before the question.
    """

    template: str
    tokenizer: Any
    use_start_end: bool = False
    add_time_instruction: bool = False

    def question(self, context: str, num_visuals: int, clips: Sequence[ClipTimes]) -> str:
        """Build the user's turn: placeholders, a line break, the optional time instruction, and the task's text.

        If the text already contains one ``<image>`` for each visual, they stay in their places. Any other number of
        them is part of the text.
        """
        given = context.count(DEFAULT_IMAGE_TOKEN)
        if self.add_time_instruction:
            context = "\n".join([*map(time_instruction, clips), context])
        if num_visuals in (0, given):
            return context
        placeholder = DEFAULT_IMAGE_TOKEN
        if self.use_start_end:
            placeholder = DEFAULT_IM_START_TOKEN + placeholder + DEFAULT_IM_END_TOKEN
        return " ".join([placeholder] * num_visuals) + "\n" + context

    def prompt(self, question: str, answer: str | None = None) -> str:
        """Build the whole prompt, open for the model to answer, or closed after `answer`."""
        conversation = copy.deepcopy(conv_templates[self.template])
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], answer)
        return conversation.get_prompt()

    def ids(self, prompt: str, num_visuals: int | None = None) -> torch.Tensor:
        """Tokenise a prompt to ids (L,), with placeholders for the first `num_visuals` ``<image>``, or all if None."""
        ids = tokenizer_image_token(prompt, self.tokenizer, return_tensors="pt", num_images=num_visuals)
        return torch.as_tensor(ids)

    @property
    def stop_text(self) -> str:
        """The text with which the template closes an answer."""
        conversation = conv_templates[self.template]
        two_separators = conversation.sep_style is SeparatorStyle.TWO
        return (conversation.sep2 if two_separators else conversation.sep) or conversation.sep


def time_instruction(clip: ClipTimes) -> str:
    """Format the sentences with the times of the frames, in seconds with two decimals, as LLaVA-Video was trained."""
    times = ",".join(f"{time:.2f}s" for time in clip.times)
    return (
        f"The video lasts for {clip.duration:.2f} seconds, and {len(clip.times)} frames are uniformly sampled from it. "
        f"These frames are located at {times}.Please answer the following questions related to this video."
    )
