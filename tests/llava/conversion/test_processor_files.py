"""The native processor writes LLaVA-NeXT's conversations and reads pixels as LLaVA-NeXT does."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from llava.conversation import conv_templates
from llava.conversion.convert import convert


@pytest.fixture(scope="module")
def processor(llava_golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "checkpoint"
    convert(str(llava_golden / "ckpt-video"), folder, verify=False)
    return AutoProcessor.from_pretrained(folder)


def conversation(*turns):
    made = conv_templates["qwen_1_5"].copy()
    for number, text in enumerate(turns):
        made.append_message(made.roles[number % 2], text)
    return made.get_prompt()


def message(role, *content):
    parts = {"<image>": {"type": "image"}, "<video>": {"type": "video"}}
    return {"role": role, "content": [parts.get(part, {"type": "text", "text": part}) for part in content]}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([message("user", "Why?")], ("Why?", None)),
        ([message("user", "<video>", "Why?")], ("<video>\nWhy?", None)),
        ([message("user", "<image>", "<image>", "Which?")], ("<image> <image>\nWhich?", None)),
        (
            [message("user", "<video>", "Why?"), message("assistant", "So."), message("user", "How?")],
            ("<video>\nWhy?", "So.", "How?", None),
        ),
        ([{"role": "user", "content": "Why?"}], ("Why?", None)),
    ],
)
def test_template_is_that_of_qwen_1_5(processor, messages, expected):
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == conversation(*expected)


def test_a_system_message_replaces_the_usual_one(processor):
    text = processor.apply_chat_template([message("system", "Be brief."), message("user", "Why?")], tokenize=False)
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"


def test_pixels_of_frames_that_need_no_resizing(processor):
    frames = np.random.default_rng(0).integers(0, 256, (3, 98, 98, 3), dtype=np.uint8)
    found = processor(text=["<video>"], videos=[frames], return_tensors="pt")
    expected = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    assert torch.allclose(found["pixel_values_videos"][0], expected, atol=1e-6)
    assert found["input_ids"].tolist() == [[388] * (3 * 4 * 4 + 1)]  # 7x7 patches pooled to 4x4, and a newline


def test_frames_are_resized_almost_as_by_pil(processor, video_checkpoint):
    frames = np.random.default_rng(0).integers(0, 256, (1, 150, 130, 3), dtype=np.uint8)
    found = processor(text=["<video>"], videos=[frames], return_tensors="pt")["pixel_values_videos"][0]
    expected = video_checkpoint.processor.preprocess(frames, return_tensors="pt")["pixel_values"]
    assert found.shape == expected.shape == (1, 3, 98, 98)
    assert (found - expected).abs().max() <= 2 * 2 / 255  # two grey levels of 255, in units of -1 to 1
