"""A prompt that was not compressed is the unmodified model's, bit by bit, in forward and generate."""

import pytest
import torch

from native_models.families import build
from native_models.prompts import make_frames, make_inputs
from stgridpool.adapters import adapter_for, compress_inputs
from stgridpool.adapters.families import FAMILIES

NAMES = [name for family in FAMILIES for name in family.model_types]
OPTIONS = {"max_new_tokens": 5, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}


def check_identity(name, *prompts, **options):
    model, processor = build(name)
    adapter, inputs = adapter_for(model), make_inputs(processor, *prompts)
    prompt = compress_inputs(model, inputs, None, positions="hf")
    assert prompt.num_removed == 0
    with torch.no_grad():
        mask = inputs["attention_mask"]
        # Without positions, stock models with one axis count padding; generate gives them these.
        explicit = {} if "qwen" in name else {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
        expected = model(**inputs, **explicit).logits
        with prompt.prefilling(adapter, model):
            logits = model(**prompt.forward_inputs).logits
        assert torch.equal(logits[mask.bool()], expected[mask.bool()])
    expected = model.generate(**inputs, **OPTIONS, **options)
    with prompt.prefilling(adapter, model):
        output = model.generate(**prompt.inputs, **OPTIONS, **options)
    assert torch.equal(output.sequences[:, -5:], expected.sequences[:, -5:])
    assert all(map(torch.equal, output.logits, expected.logits))


@pytest.mark.parametrize("num_frames", [1, 2, 4, 40])
@pytest.mark.parametrize("name", NAMES)
def test_one_video(name, num_frames):
    if name.startswith("qwen3") and num_frames == 1:
        pytest.skip("the processor of Qwen3-VL refuses videos of one frame")
    check_identity(name, [make_frames(num_frames), "What happens?"])


@pytest.mark.parametrize("name", NAMES)
def test_image_between_text_and_video(name):
    frames = make_frames(4, 33, 41)
    check_identity(name, ["See", frames[0], "and", frames, "What happens?"])


@pytest.mark.parametrize("name", NAMES)
def test_batch_with_a_prompt_of_two_videos_and_one_of_text(name):
    one, other = make_frames(4), make_frames(4, 30, 20, seed=1)
    check_identity(name, [one, "What happens?"], ["Look", one, "and", other, "Why?"], ["Say something."])


@pytest.mark.parametrize("name", NAMES)
def test_beams(name):
    check_identity(name, [make_frames(4), "What?"], [make_frames(4, seed=1), "And why?"], num_beams=3)
