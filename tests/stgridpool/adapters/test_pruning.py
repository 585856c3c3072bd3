"""Dropped tokens: the compressed prompt equals the whole one in which nobody looks at them."""

import pytest
import torch

from native_models.families import build
from native_models.masking import masking
from native_models.prompts import make_frames, make_inputs
from stgridpool import Random, build_compressor
from stgridpool.adapters import adapter_for, compress_inputs

NAMES = ["llava_onevision", "qwen2_5_vl", "qwen3_vl"]
OPTIONS = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
pytestmark = pytest.mark.adapters


def check_against_the_mask(name, compressor, positions, *prompts):
    model, processor = build(name)
    adapter, inputs = adapter_for(model), make_inputs(processor, *prompts)
    dense = compress_inputs(model, inputs, None, positions=positions)
    prompt = compress_inputs(model, inputs, compressor, positions=positions)
    assert prompt.num_removed > 0
    oracle = dense.inputs | masking(dense, prompt)
    left = oracle["attention_mask"].bool()
    with torch.no_grad():
        with dense.prefilling(adapter, model):
            expected = model(**{name: value for name, value in oracle.items() if name != "input_ids"}).logits[left]
        with prompt.prefilling(adapter, model):
            logits = model(**prompt.forward_inputs).logits[prompt.inputs["attention_mask"].bool()]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=2e-5)
    with dense.prefilling(adapter, model):
        expected = model.generate(**oracle, **OPTIONS)
    with prompt.prefilling(adapter, model):
        output = model.generate(**prompt.inputs, **OPTIONS)
    for ours, theirs in zip(output.logits, expected.logits, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("positions", ["survive", "reassign"])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_with_several_videos(name, positions):
    one, other = make_frames(6), make_frames(6, 30, 20, seed=1)
    prompts = [one, "What happens?"], ["Look", one, "and", other, "Why?"]
    check_against_the_mask(name, Random(retention=0.4), positions, *prompts)


@pytest.mark.parametrize("name", NAMES)
def test_long_videos_of_odd_sizes(name):
    check_against_the_mask(name, Random(retention=0.1), "survive", [make_frames(24, 43, 21), "What happens?"])


@pytest.mark.parametrize("name", NAMES)
def test_data_dependent_counts_beside_an_image(name):
    frames = make_frames(4, 33, 41)
    frames[1:3] = frames[0]
    compressor = build_compressor("evs", retention=0.5)
    check_against_the_mask(name, compressor, "reference", ["See", frames[0], "and", frames, "What happens?"])


@pytest.mark.parametrize("name", NAMES)
def test_frames_without_any_token_keep_the_text_around_them(name):
    model, processor = build(name)
    inputs = make_inputs(processor, [make_frames(8), "What happens?"])
    prompt = compress_inputs(model, inputs, build_compressor("stride", tokens=1))
    (visual,) = prompt.visuals[0]
    assert len(visual.tokens) == 1
    text = inputs["input_ids"][0][~adapter_for(model).slots(model, inputs)[0]]
    written = prompt.inputs["input_ids"][0]
    assert torch.equal(written[written != model.config.video_token_id], text)
    check_against_the_mask(name, build_compressor("stride", tokens=1), "survive", [make_frames(8), "What happens?"])


@pytest.mark.parametrize("compressor", ["st_gridpool", "sttm", "random"])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_prompts_one_by_one(name, compressor):
    model, processor = build(name)
    adapter = adapter_for(model)
    long, short = make_frames(4), make_frames(4, 16, 24, seed=1)
    prompts = [long, "What happens?"], ["Look", short, "and", long, "Tell me why."], ["Say", "something."]
    answers = []
    for batch in (prompts, *([prompt] for prompt in prompts)):
        prompt = compress_inputs(model, make_inputs(processor, *batch), compressor)
        with prompt.prefilling(adapter, model):
            answers.append(torch.stack(model.generate(**prompt.inputs, **OPTIONS).logits, dim=1))
    torch.testing.assert_close(answers[0], torch.cat(answers[1:]), rtol=1e-4, atol=5e-5)
