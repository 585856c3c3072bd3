"""In every family, a pruned prompt is the whole one with tokens masked, and a batch is what its prompts are alone."""

from dataclasses import dataclass

import pytest
import torch

import stgridpool
from native_models.families import BUILDERS, DENSE, build
from native_models.limits import BEAMS, MASKED_TOKENS, OWN_TEXT, TWO_VIDEOS, UNEQUAL, WITH_IMAGE, skip_unless_possible
from native_models.masking import masking
from native_models.prompts import make_clips, make_frames, make_inputs
from stgridpool import Compressor, Plan, Step
from stgridpool.adapters import adapter_for, compress_inputs

NUM_NEW = 3
OPTIONS = {"max_new_tokens": NUM_NEW, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
pytestmark = pytest.mark.adapters
every_family = pytest.mark.parametrize("name", DENSE)


@dataclass(frozen=True)
class Half(Compressor):
    """Keeps a random half of the tokens after the model's own pooling."""

    def plan(self, tokens, evidence):
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
        return Plan.keep(order[: len(tokens) // 2].sort().values, len(tokens))

    def steps(self):
        return (Step(self, "tokens"),)


def generate(model, prompt, **changed):
    with prompt.prefilling(adapter_for(model), model):
        output = model.generate(**prompt.inputs | changed, **OPTIONS)
    return output.sequences[:, -NUM_NEW:], torch.stack(output.logits, dim=1)


def check_equals_masking(name, positions, *prompts, images=False):
    model, processor = build(name)
    inputs, options = make_inputs(processor, *prompts), {"clips": make_clips(*prompts), "images": images}
    pruned, whole = (
        compress_inputs(model, inputs, method, positions=positions, **options) for method in (Half(), None)
    )
    assert pruned.num_removed > 0
    ids, logits = generate(model, pruned)
    expected_ids, expected = generate(model, whole, **masking(whole, pruned))
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", ["reference", "survive"])
@pytest.mark.parametrize("name", BUILDERS)
def test_pruning_is_masking(name, positions):
    skip_unless_possible(name, MASKED_TOKENS)
    check_equals_masking(name, positions, [make_frames(5, 33, 41), "What happens?"])


@every_family
def test_pruning_is_masking_between_images_and_text(name):
    skip_unless_possible(name, MASKED_TOKENS)
    skip_unless_possible(name, WITH_IMAGE)
    frames = make_frames(4, 33, 41)
    check_equals_masking(name, "reference", ["See", frames[0], "and", frames, "What happens?"])


@every_family
def test_pruning_of_images_is_masking(name):
    skip_unless_possible(name, MASKED_TOKENS)
    skip_unless_possible(name, WITH_IMAGE)
    frames = make_frames(4, 33, 41)
    prompt = ["See", frames[0], "and", frames, "What happens?"]
    if name in ("llava_onevision", "llava_next_video"):  # their images have newline tokens between rows
        with pytest.raises(ValueError, match=f"images of {name} cannot be compressed; leave out images=True"):
            check_equals_masking(name, "reference", prompt, images=True)
        return
    check_equals_masking(name, "reference", prompt, images=True)


@every_family
def test_pruning_is_masking_in_two_videos(name):
    skip_unless_possible(name, MASKED_TOKENS)
    skip_unless_possible(name, TWO_VIDEOS)
    check_equals_masking(name, "reference", [make_frames(4), "and", make_frames(4, 30, 20, seed=1), "Why?"])


@every_family
def test_a_batch_is_what_its_prompts_are_alone(name):
    model, processor = build(name)
    prompts = [[make_frames(4), "What happens?"], ["Look,", make_frames(4, 30, 20, seed=1), "and say what happens."]]
    batch = compress_inputs(model, make_inputs(processor, *prompts), "norm_topk", retention=0.4)
    ids, logits = generate(model, batch)
    tolerance = 5e-4 if name.startswith("qwen3_5") else 3e-5  # unmodified, linear attention differs by 1e-4, too
    for row, prompt in enumerate(prompts):
        alone = compress_inputs(model, make_inputs(processor, prompt), "norm_topk", retention=0.4)
        assert [len(one.tokens) for one in alone.visuals[0]] == [len(one.tokens) for one in batch.visuals[row]]
        expected_ids, expected = generate(model, alone)
        assert torch.equal(ids[row : row + 1], expected_ids)
        torch.testing.assert_close(logits[row : row + 1], expected, rtol=0, atol=tolerance)


@every_family
def test_a_batch_of_unequal_videos_is_what_its_prompts_are_alone(name):
    skip_unless_possible(name, UNEQUAL)
    skip_unless_possible(name, OWN_TEXT)
    model, processor = build(name)
    prompts = [[make_frames(4), "What happens?"], [make_frames(7, 30, 20, seed=1), "Why?"], ["Say something."]]
    with stgridpool.compress(model, Half()):
        ids = model.generate(**make_inputs(processor, *prompts), max_new_tokens=NUM_NEW, do_sample=False)
        alone = [
            model.generate(**make_inputs(processor, one), max_new_tokens=NUM_NEW, do_sample=False) for one in prompts
        ]
    assert [row[-NUM_NEW:] for row in ids.tolist()] == [one[0, -NUM_NEW:].tolist() for one in alone]


@every_family
def test_beams_of_a_batch_are_those_of_its_prompts(name):
    skip_unless_possible(name, BEAMS)
    model, processor = build(name)
    prompts = [[make_frames(4), "What?"], [make_frames(4, seed=1), "What happens then?"]]
    beams = {"max_new_tokens": NUM_NEW, "do_sample": False, "num_beams": 2}
    with stgridpool.compress(model, "stride", retention=0.5):
        ids = model.generate(**make_inputs(processor, *prompts), **beams)
        alone = [model.generate(**make_inputs(processor, prompt), **beams) for prompt in prompts]
    assert [row[-NUM_NEW:] for row in ids.tolist()] == [one[0, -NUM_NEW:].tolist() for one in alone]
