"""The tokenizer of an NVILA checkpoint: its media tokens, its chat template, and the ids that end an answer."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.model.tokenizer import load_tokenizer

SENTINEL, VIDEO_TOKEN = "<vila/sentinel>", "<vila/video>"
ADDED_TOKENS = (SENTINEL, DEFAULT_IMAGE_TOKEN, VIDEO_TOKEN)
"""Tokens that the original adds, in this order. They are replaced by media before anything is embedded, so that the
embeddings need no rows for them."""

BUILT_IN = {
    "qwen2": "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
}
"""Chat templates that a checkpoint's `chat_template` names, in place of the tokenizer's own."""


def load_nvila_tokenizer(folder: Path, config: Any, template: str | None) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder`, with the media tokens and the chat template.

    Args:
        folder: The part `llm` of the checkpoint.
        config: Configuration of the checkpoint.
        template: The checkpoint's `chat_template`: one of `BUILT_IN`, or None for the tokenizer's own.

    Raises:
        ValueError: If the template is unknown or there is none; see also `load_tokenizer`.
    """
    tokenizer = load_tokenizer(folder, config)
    tokenizer.add_tokens([token for token in ADDED_TOKENS if token not in tokenizer.get_vocab()], special_tokens=True)
    if template is not None:
        if template not in BUILT_IN:
            raise ValueError(f"chat_template must be null or one of {', '.join(BUILT_IN)}, got {template!r}")
        tokenizer.chat_template = BUILT_IN[template]
    if not tokenizer.chat_template:
        raise ValueError(
            f"{folder / 'tokenizer_config.json'} has no chat_template: copy it from the original checkpoint"
        )
    return tokenizer


def rendered(tokenizer: Any, question: str, answer: str | None = None) -> str:
    """Render one turn of the user by the chat template, open for an answer or with one."""
    turns = [{"role": "user", "content": question}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None)
    return text


def stop_ids(tokenizer: Any) -> list[int]:
    """Return the ids that end an answer: the end token, and the one that follows an answer in the chat template."""
    marker = "ANSWER"
    behind = tokenizer(
        rendered(tokenizer, "QUESTION", marker).rpartition(marker)[2], add_special_tokens=False
    ).input_ids
    return list(dict.fromkeys([tokenizer.eos_token_id, *behind[:1]]))
