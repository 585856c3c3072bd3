"""Prompt templates: from a list of messages to the text that the tokenizer reads.

Source: the strings are those that the checkpoints were trained with
(https://github.com/LLaVA-VL/LLaVA-NeXT, the templates of the same names).
"""

import dataclasses
from enum import Enum, auto
from functools import cache
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN

Message = str | tuple[Any, ...] | None


class SeparatorStyle(Enum):
    """How the turns of a conversation are joined."""

    TWO = auto()  # "ROLE: text", two separators in turn
    PLAIN = auto()  # texts without roles
    CHATML = auto()  # role line, text, end token
    LLAMA_3 = auto()  # the chat template of a Llama 3 tokenizer


@cache
def _chat_tokenizer(name: str) -> Any:
    """Load the tokenizer whose chat template is the prompt format, when a prompt first needs it."""
    from transformers import AutoTokenizer  # noqa: PLC0415  heavy, and only Llama 3 needs it

    return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


@dataclasses.dataclass
class Conversation:
    """A prompt being built.

    Attributes:
        system: System text; for CHATML with its role line. Empty: no system turn.
        roles: Names of the user and of the assistant as they stand in the prompt.
        messages: `[role, text]` pairs. An empty or missing text is the turn that the model is to write. A text may be a
            tuple `(text, images, ...)`.
        offset: Number of leading messages that are examples, kept for scripts that read it.
        sep_style: How turns are joined.
        sep: Separator after a turn (after the user's turn in style TWO).
        sep2: Separator after the assistant's turn in style TWO.
        version: Name of the prompt family.
        tokenizer_id: Folder or hub name of the tokenizer whose chat template is used (style LLAMA_3).
        stop_token_ids: Token ids that end an answer, where the template fixes them.
    """

    system: str
    roles: tuple[str, str]
    messages: list[list[Any]]
    offset: int = 0
    sep_style: SeparatorStyle = SeparatorStyle.CHATML
    sep: str = "<|im_end|>"
    sep2: str | None = None
    version: str = "Unknown"
    tokenizer_id: str = ""
    stop_token_ids: tuple[int, ...] = ()

    def append_message(self, role: str, message: Message) -> None:
        """Append a turn."""
        self.messages.append([role, message])

    def copy(self) -> "Conversation":
        """Copy the conversation, so that the copy can grow independently."""
        return dataclasses.replace(self, messages=[[role, message] for role, message in self.messages])

    def get_prompt(self) -> str:
        """Format the whole conversation as text.

        An open last turn ends with its role, so that the model continues there.
        """
        turns = self._turns()
        if self.sep_style is SeparatorStyle.TWO:
            return self._prompt_two(turns)
        if self.sep_style is SeparatorStyle.PLAIN:
            return "".join(text + self.sep for _, text in turns if text)
        if self.sep_style is SeparatorStyle.CHATML:
            return self._prompt_chatml(turns)
        chat = [{"role": "system", "content": self.system}]
        chat += [{"role": role, "content": text} for role, text in turns if text]
        tokenizer = _chat_tokenizer(self.tokenizer_id)
        prompt: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return prompt

    def _turns(self) -> list[tuple[str, str]]:
        """Return messages as (role, text), with the image tokens of tuple messages inserted into the text."""
        turns = []
        for index, (role, message) in enumerate(self.messages):
            text = message[0] if isinstance(message, tuple) else message or ""
            if isinstance(message, tuple) and index == 0 and not text.startswith(DEFAULT_IMAGE_TOKEN):
                text = DEFAULT_IMAGE_TOKEN + "\n" + text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
            elif isinstance(message, tuple) and index and self.sep_style in _IMAGE_PREFIX_STYLES:
                text = DEFAULT_IMAGE_TOKEN * len(message[1]) + text
            turns.append((role, text))
        return turns

    def _prompt_chatml(self, turns: list[tuple[str, str]]) -> str:
        prompt = f"{self.system}{self.sep}\n" if self.system else ""
        for role, text in turns:
            prompt += f"{role}\n{text}{self.sep}\n" if text else f"{role}\n"
        return prompt

    def _prompt_two(self, turns: list[tuple[str, str]]) -> str:
        prompt = self.system + self.sep
        for index, (role, text) in enumerate(turns):
            end = self.sep2 if index % 2 else self.sep
            prompt += f"{role}: {text}{end}" if text else f"{role}:"
        return prompt


_IMAGE_PREFIX_STYLES = (SeparatorStyle.CHATML, SeparatorStyle.LLAMA_3)


def _chatml(system: str) -> Conversation:
    return Conversation(
        system=f"<|im_start|>system\n{system}",
        roles=("<|im_start|>user", "<|im_start|>assistant"),
        messages=[],
        version="qwen",
    )


_QWEN_2 = _chatml("You are a helpful assistant.")
_QWEN_2_5 = _chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
_VICUNA_V1 = Conversation(
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    roles=("USER", "ASSISTANT"),
    messages=[],
    sep_style=SeparatorStyle.TWO,
    sep=" ",
    sep2="</s>",
    version="v1",
)
_PLAIN = Conversation(system="", roles=("", ""), messages=[], sep_style=SeparatorStyle.PLAIN, sep="\n")
_LLAMA_3 = Conversation(
    system="You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language.",
    roles=("user", "assistant"),
    messages=[],
    sep_style=SeparatorStyle.LLAMA_3,
    sep="<|eot_id|>",
    version="llama_v3",
    tokenizer_id="meta-llama/Meta-Llama-3-8B-Instruct",
    stop_token_ids=(128009,),
)

conv_templates: dict[str, Conversation] = {
    "qwen_1_5": _QWEN_2,
    "qwen_2": _QWEN_2,
    "qwen_2_5": _QWEN_2_5,
    "v1": _VICUNA_V1,
    "vicuna_v1": _VICUNA_V1,
    "plain": _PLAIN,
    "v0_plain": _PLAIN,
    "llava_llama_3": _LLAMA_3,
}
