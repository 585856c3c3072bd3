"""Native models whose parts are on several devices."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers.utils import ModelOutput

import stgridpool
from native_models.families import build
from native_models.prompts import make_frames, make_inputs

GREEDY = {"max_new_tokens": 4, "do_sample": False}
pytestmark = [
    pytest.mark.adapters,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_cpu(value):
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, ModelOutput):
        return replace(value, **{key: on_cpu(one) for key, one in value.items()})
    return type(value)(map(on_cpu, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", ["qwen3_vl", "video_llama_3"])
def test_a_vision_part_on_another_device_than_the_language_model(name):
    model, processor = build(name)
    model = copy.deepcopy(model).to("cuda")
    frames = make_frames(4)
    inputs = make_inputs(processor, ["See", frames[0], "and", frames, "What happens?"]).to("cuda")
    with stgridpool.compress(model, "stride", retention=0.5):
        expected = model.generate(**inputs, **GREEDY)
        last = model.model.visual if name == "qwen3_vl" else model.model.projector  # of the vision part
        moved = last.register_forward_hook(lambda module, args, output: on_cpu(output))
        try:
            assert torch.equal(model.generate(**inputs, **GREEDY), expected)
        finally:
            moved.remove()
