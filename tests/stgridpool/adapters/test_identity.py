"""A prompt that was not compressed is the unmodified model's, bit by bit, in forward and generate."""

import pytest
import torch

from native_models.families import BUILDERS, DENSE, build
from native_models.limits import BEAMS, ONE_FRAME, TWO_VIDEOS, UNEQUAL, WITH_IMAGE, skip_unless_possible
from native_models.prompts import make_clips, make_frames, make_inputs
from stgridpool.adapters import adapter_for, compress_inputs

OPTIONS = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
pytestmark = pytest.mark.adapters
every_family = pytest.mark.parametrize("name", DENSE)


def check_identity(name, *prompts, num_new=2, **options):
    model, processor = build(name)
    adapter, inputs = adapter_for(model), make_inputs(processor, *prompts)
    prompt = compress_inputs(model, inputs, None, positions="hf", clips=make_clips(*prompts))
    assert prompt.num_removed == 0
    with torch.no_grad():
        mask = inputs["attention_mask"]
        # Without positions, stock models with one axis count padding; generate gives them these.
        one_axis = prompt.inputs["position_ids"].dim() == 2
        explicit = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)} if one_axis else {}
        expected = model(**inputs, **explicit).logits
        with prompt.prefilling(adapter, model):
            logits = model(**prompt.forward_inputs).logits
        assert torch.equal(logits[mask.bool()], expected[mask.bool()])
    options = OPTIONS | options | {"max_new_tokens": num_new}
    expected = model.generate(**inputs, **options)
    with prompt.prefilling(adapter, model):
        output = model.generate(**prompt.inputs, **options)
    assert torch.equal(output.sequences[:, -num_new:], expected.sequences[:, -num_new:])
    assert all(map(torch.equal, output.logits, expected.logits))


@pytest.mark.parametrize("num_frames", [1, 2, 24])
@every_family
def test_one_video(name, num_frames):
    """Four: in test_static_cache. The last of 24 are shown after 10 seconds, which some families write out."""
    if num_frames == 1:
        skip_unless_possible(name, ONE_FRAME)
    check_identity(name, [make_frames(num_frames, 16, 24), "What happens?"], num_new=3)


@pytest.mark.parametrize("name", BUILDERS)
def test_odd_sizes_and_numbers(name):
    check_identity(name, [make_frames(5, 33, 41), "What happens?"])


@every_family
def test_image_between_text_and_video(name):
    skip_unless_possible(name, WITH_IMAGE)
    frames = make_frames(4, 33, 41)
    check_identity(name, ["See", frames[0], "and", frames, "What happens?"])


@every_family
def test_batch_with_a_prompt_of_text(name):
    one, other = make_frames(4), make_frames(4, 30, 20, seed=1)
    check_identity(name, [one, "What happens?"], ["Look", other, "and say why."], ["Say something."])


@every_family
def test_batch_of_unequal_videos(name):
    skip_unless_possible(name, UNEQUAL)
    check_identity(name, [make_frames(4), "What happens?"], [make_frames(6, 30, 20, seed=1), "Why?"])


@every_family
def test_two_videos(name):
    skip_unless_possible(name, TWO_VIDEOS)
    check_identity(name, ["Look", make_frames(4), "and", make_frames(4, 30, 20, seed=1), "Why?"])


@every_family
def test_beams(name):
    skip_unless_possible(name, BEAMS)
    check_identity(name, [make_frames(4), "What?"], [make_frames(4, seed=1), "And why?"], num_new=3, num_beams=3)


@every_family
def test_static_cache(name):
    check_identity(name, [make_frames(4), "What happens?"], num_new=3, cache_implementation="static")
