"""Rows of a vision tower reach the tokens that were made of their patches: coordinates show it."""

import pytest
import torch

from native_models.families import BUILDERS, build
from native_models.prompts import make_frames, make_inputs
from stgridpool.adapters import adapter_for, compress_inputs

RASTER = {  # class tokens per frame, patches along a side of a frame, and along a side of a token
    "llava_next_video": (1, 8, 2),
    "internvl": (1, 8, 2),
    "smolvlm": (0, 8, 2),
    "molmo2": (0, 8, 3),
}
MERGED = ["qwen3_vl", "qwen3_5", "glm4v", "video_llama_3"]  # four patches of a token follow one another
pytestmark = pytest.mark.adapters


def coordinates(frames, rows, columns):
    axes = torch.meshgrid(*map(torch.arange, (frames, rows, columns)), indexing="ij")
    return torch.stack(axes, dim=-1).float()  # (T, H, W, 3)


def encoded(name):
    model, processor = build(name)
    adapter, inputs = adapter_for(model), make_inputs(processor, [make_frames(4, 24, 40), "What?"])
    with torch.no_grad():
        return adapter, model, inputs, adapter.encode(model, inputs)


@pytest.mark.parametrize("name", [name for name in RASTER if name in BUILDERS])
def test_patches_in_raster_order(name):
    num_class, side, block = RASTER[name]
    adapter, model, inputs, visuals = encoded(name)
    [shape] = [visual.tokens.shape[:3] for visual in visuals]
    patches = coordinates(shape[0], side, side)
    rows = torch.cat([torch.full((shape[0], num_class, 3), -100.0), patches.flatten(1, 2)], dim=1).flatten(0, 1)
    [dealt] = adapter.tower_rows(model, inputs, "video", rows, visuals)
    assert shape[1:] == (-(-side // block),) * 2
    means = [torch.stack([part.mean((1, 2)) for part in row.split(block, 2)], 1) for row in patches.split(block, 1)]
    torch.testing.assert_close(dealt.reshape(*shape, 3), torch.stack(means, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MERGED)
def test_patches_token_by_token(name):
    adapter, model, inputs, visuals = encoded(name)
    [shape] = [visual.tokens.shape[:3] for visual in visuals]
    tokens = coordinates(*shape).flatten(0, 2)
    [dealt] = adapter.tower_rows(model, inputs, "video", tokens.repeat_interleave(4, 0), visuals)
    assert torch.equal(dealt, tokens)


def test_class_tokens_of_video_llava_are_tokens():
    adapter, model, inputs, visuals = encoded("video_llava")
    rows = torch.arange(4 * 17.0)
    assert torch.equal(adapter.tower_rows(model, inputs, "video", rows, visuals)[0], rows)


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
