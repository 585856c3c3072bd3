import pytest
from transformers import AutoTokenizer

from llava.conversation import conv_templates
from llava.prompts import PromptBuilder, time_instruction
from lmms_eval_stgridpool.videos.encoding import ClipTimes

CLIP = ClipTimes(times=(0.0, 1.0, 2.0), duration=2.5)


@pytest.fixture(scope="module")
def tokenizer(golden):
    return AutoTokenizer.from_pretrained(golden / "llava" / "ckpt-video")


def test_the_question_follows_its_video_on_a_new_line():
    prompts = PromptBuilder("qwen_1_5", None)
    assert prompts.question("What?\nA. x", 1, [CLIP]) == "<image>\nWhat?\nA. x"
    assert prompts.question("What?", 0, []) == "What?"
    assert prompts.question("What?", 2, []) == "<image> <image>\nWhat?"
    assert prompts.question("First <image> then <image>?", 2, []) == "First <image> then <image>?"


def test_other_numbers_of_placeholders_in_a_question_are_text(tokenizer):
    prompts = PromptBuilder("qwen_1_5", tokenizer)
    assert prompts.question("First <image>?", 0, []) == "First <image>?"
    assert prompts.question("First <image>?", 2, []) == "<image> <image>\nFirst <image>?"
    question = prompts.question("<image> or <image>?", 1, [CLIP])
    ids = prompts.ids(question, 1).tolist()
    assert ids == [-200, *tokenizer("\n<image> or <image>?").input_ids]
    assert tokenizer.decode(ids[1:]) == "\n<image> or <image>?"
    assert prompts.ids("<image>", 0).tolist() == tokenizer("<image>").input_ids


def test_start_and_end_tokens_are_put_where_the_checkpoint_uses_them():
    assert (
        PromptBuilder("qwen_1_5", None, use_start_end=True).question("What?", 1, [])
        == "<im_start><image><im_end>\nWhat?"
    )


def test_the_time_instruction_is_added_only_if_asked_for():
    expected = (
        "<image>\nThe video lasts for 2.50 seconds, and 3 frames are uniformly sampled from it. "
        "These frames are located at 0.00s,1.00s,2.00s."
        "Please answer the following questions related to this video.\nWhat?"
    )
    assert PromptBuilder("qwen_1_5", None, add_time_instruction=True).question("What?", 1, [CLIP]) == expected
    assert time_instruction(CLIP) in expected


def test_prompts_are_those_of_the_template_and_leave_it_as_it_was(tokenizer):
    prompts = PromptBuilder("qwen_1_5", tokenizer)
    open_prompt = prompts.prompt("<image>\nWhat?")
    assert open_prompt == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompts.prompt("<image>\nWhat?", "A") == open_prompt + "A<|im_end|>\n"
    assert conv_templates["qwen_1_5"].messages == []
    assert (prompts.ids(open_prompt) == -200).sum() == 1


@pytest.mark.parametrize(
    ("template", "stop"),
    [("qwen_1_5", "<|im_end|>"), ("vicuna_v1", "</s>"), ("plain", "\n"), ("llava_llama_3", "<|eot_id|>")],
)
def test_answers_stop_at_the_end_of_the_turn(template, stop):
    assert PromptBuilder(template, None).stop_text == stop
