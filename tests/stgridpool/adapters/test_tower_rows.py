"""Rows of a vision tower reach the tokens that are made of them: gradients show which these are."""

import pytest
import torch

from native_models.families import BUILDERS, DENSE, build
from native_models.prompts import make_frames, make_inputs
from stgridpool.adapters import adapter_for, compress_inputs
from stgridpool.adapters.tower_evidence import layers_of_tower

pytestmark = pytest.mark.adapters


@pytest.mark.parametrize("name", DENSE)
def test_rows_reach_the_tokens_that_are_made_of_them(name):
    """After the last layer no row looks at another one, so that a token depends on the rows it is made of alone."""
    model, processor = build(name)
    adapter, inputs = adapter_for(model), make_inputs(processor, [make_frames(4, 24, 40), "What?"])
    outputs = []

    def note(module, args, output):
        outputs.append(output if isinstance(output, torch.Tensor) else output[0])

    handle = layers_of_tower(adapter, model)[-1].register_forward_hook(note)
    try:
        with torch.enable_grad():
            visuals = adapter.encode(model, inputs)
    finally:
        handle.remove()
    maps = [visual.tokens if visual.patches is None else visual.patches for visual in visuals]
    tokens = torch.cat([one.flatten(0, 2) for one in maps])
    rows = torch.eye(sum(one[..., 0].numel() for one in outputs))
    weights = torch.cat(adapter.tower_rows(model, inputs, "video", rows, visuals))
    assert weights.shape == (len(tokens), len(rows))
    for token in (0, 1, len(tokens) // 2 + 1, len(tokens) - 1):
        slopes = torch.autograd.grad(tokens[token].square().sum(), outputs, retain_graph=True)
        reached = torch.cat([slope.flatten(0, -2).abs().sum(-1) for slope in slopes])
        assert bool((weights[token] > 0)[reached > 0].all())
        # Molmo2 pools by attention; in the tiny model it is so sharp that most weights round to 0.
        assert name == "molmo2" or torch.equal(weights[token] > 0, reached > 0)
        torch.testing.assert_close(weights[token].sum(), torch.ones(()))


def test_the_image_tower_of_video_llava_is_not_watched():
    model, processor = build("video_llava")
    frames = make_frames(4)
    inputs = make_inputs(processor, ["See", frames[0], "and", frames, "What?"])
    with pytest.raises(ValueError, match="attention of a vision part for images of video_llava is not gathered"):
        compress_inputs(model, inputs, "visionzip", images=True)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_method_that_asks_the_tower(name):
    """VisionZip needs attention and keys; frames that repeat are tokens that VideoLLaMA3 itself drops."""
    model, processor = build(name)
    frames = make_frames(6, 32, 40)
    frames[2:4, :16] = frames[1, :16]
    inputs = make_inputs(processor, [frames, "What happens?"])
    prompt = compress_inputs(model, inputs, "visionzip")
    assert prompt.num_removed > 0
    with prompt.prefilling(adapter_for(model), model):
        model.generate(**prompt.inputs, max_new_tokens=2, do_sample=False)
