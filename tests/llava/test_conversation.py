"""Prompts: the golden table, copies, tuple messages, and Llama 3's template."""

import copy
import dataclasses
import json

import pytest
from transformers import AutoTokenizer

from llava.conversation import Conversation, SeparatorStyle, conv_templates

TEMPLATES = ["qwen_1_5", "qwen_2", "qwen_2_5", "plain", "v1", "vicuna_v1"]


def prompt_of(conversation: Conversation, *messages) -> str:
    conversation = conversation.copy()
    for index, message in enumerate(messages):
        conversation.append_message(conversation.roles[index % 2], message)
    return conversation.get_prompt()


@pytest.mark.parametrize("name", TEMPLATES)
def test_equals_the_original(llava_golden, name):
    expected = json.loads((llava_golden / "text_tables.json").read_text())["conversations"][name]
    template = conv_templates[name]
    assert list(template.roles) == expected["roles"]
    assert (template.sep, template.sep2, template.version) == (expected["sep"], expected["sep2"], expected["version"])
    assert template.sep_style.name == expected["sep_style"]
    for row in expected["rows"]:
        if row["prompt"] is not None:
            assert prompt_of(template, *[text for _, text in row["messages"]]) == row["prompt"]


def test_copies_grow_apart():
    first = conv_templates["qwen_1_5"].copy()
    first.append_message(first.roles[0], "a question")
    second = first.copy()
    second.messages[-1][1] = "another"
    assert conv_templates["qwen_1_5"].messages == []
    assert first.messages == [["<|im_start|>user", "a question"]]
    assert copy.deepcopy(first) == first


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        ("plain", [("look", ["img"], "pad")], "<image>\nlook\n"),
        ("plain", [("<image>\nlook", ["img"], "pad")], "<image>\nlook\n"),
        ("plain", ["one", "two"], "one\ntwo\n"),
    ],
)
def test_tuple_messages(name, messages, expected):
    assert prompt_of(conv_templates[name], *messages) == expected


def test_later_tuple_messages_name_each_image():
    prompt = prompt_of(conv_templates["qwen_1_5"], "hello", "yes?", ("compare", ["a", "b"], "pad"))
    assert prompt.endswith("<|im_start|>user\n<image><image>compare<|im_end|>\n")


def test_no_system_turn_without_system_text():
    conversation = dataclasses.replace(conv_templates["qwen_2"], system="")
    assert prompt_of(conversation, "hi", None) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_llama_3_uses_the_tokenizers_template_when_a_prompt_is_made(llava_golden, tmp_path):
    template = conv_templates["llava_llama_3"]
    assert template.sep_style is SeparatorStyle.LLAMA_3
    assert template.stop_token_ids == (128009,)
    tokenizer = AutoTokenizer.from_pretrained(llava_golden / "ckpt-video")
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[go]{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    conversation = dataclasses.replace(copy.deepcopy(template), tokenizer_id=str(tmp_path), system="S")
    assert prompt_of(conversation, "<image>\nhi", None) == "[system]S[user]<image>\nhi[go]"
