"""Sizes of videos that are known before anything is encoded."""

import numpy as np
import pytest
import torch

from native_models.families import BUILDERS, build
from stgridpool.adapters.adapter import VIDEO
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.frame_rules import OwnRule, Source
from stgridpool.adapters.native_model import NativeVideoModel
from stgridpool.adapters.native_recipe import NativeRecipe
from stgridpool.timing import StageTimer

SIZE = (40, 64)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("name", BUILDERS)
def test_sizes_are_those_of_the_encoded_video(name, count):
    """Every frame is noise, so that no family drops a token."""
    model, processor = build(name)
    adapter, source = adapter_for(model), Source(20, 2.0)
    rule = OwnRule(processor.video_processor, adapter.sampling)
    recipe = NativeRecipe(processor, rule, torch.float32, adapter.lists_per_prompt)
    indices = [3 * number for number in range(count)]
    frames = np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    inputs = recipe.inputs(frames, indices, source)
    video = NativeVideoModel(model, recipe)
    with torch.inference_mode():
        features, _ = video.encode(inputs, (), StageTimer(torch.device("cpu")))
        compressed = video.compress(features, {}, StageTimer(torch.device("cpu")))
    made, record = recipe.outline(SIZE, indices, source, adapter.blank_options)
    assert adapter.source_shape(model, made) == compressed.source_shape
    assert adapter.kept_tokens(made) in (None, compressed.num_tokens)
    text = recipe.text([{"role": "user", "content": [{"type": "video"}]}])
    written = recipe.prompt(text, [record])
    assert written["input_ids"].shape == inputs["input_ids"].shape
    assert int(adapter.slots(model, written, VIDEO).sum()) == int(adapter.slots(model, inputs, VIDEO).sum())


def test_tokens_that_repeat_are_not_counted():
    """Four equal frames of VideoLLaMA3: it keeps those of the first, and one of each other frame."""
    model, processor = build("video_llama_3")
    adapter = adapter_for(model)
    recipe = NativeRecipe(processor, OwnRule(processor.video_processor, adapter.sampling), torch.float32)
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8), 4, axis=0)
    inputs = recipe.inputs(frames, [0, 1, 2, 3], Source(20, 2.0))
    assert adapter.source_shape(model, inputs) == (4, 5, 8)
    assert adapter.kept_tokens(inputs) == 5 * 8 + 3
