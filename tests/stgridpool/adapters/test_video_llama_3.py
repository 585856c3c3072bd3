"""VideoLLaMA3's processor drops tokens that equal those of the frame before: they are neither written nor counted."""

import pytest
import torch

from native_models.families import build
from native_models.prompts import make_frames, make_inputs
from stgridpool import Average
from stgridpool.adapters import adapter_for, compress_inputs

FRAMES = make_frames(6, 32, 40)  # 4 x 5 tokens each
FRAMES[2:4, :16] = FRAMES[1, :16]  # the upper half of two frames repeats: 2 * 2 * 5 tokens are dropped
NUM_LEFT = 6 * 20 - 20
OPTIONS = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
pytestmark = pytest.mark.adapters


@pytest.fixture(scope="module")
def loaded():
    model, processor = build("video_llama_3")
    return model, make_inputs(processor, [FRAMES, "What happens?"], [FRAMES[3:], "Why?"])


def test_identity(loaded):
    model, inputs = loaded
    prompt = compress_inputs(model, inputs, None)
    assert prompt.num_removed == 0
    (visual,) = prompt.visuals[0]
    assert len(visual.tokens) == NUM_LEFT
    dropped = torch.zeros(6, 4, 5, dtype=torch.bool)
    dropped[2:4, :2] = True
    assert torch.equal(visual.run.slots.reshape(6, 4, 5) == -1, dropped)
    expected, output = model.generate(**inputs, **OPTIONS), model.generate(**prompt.inputs, **OPTIONS)
    assert all(map(torch.equal, output.logits, expected.logits))


def test_retention_is_a_share_of_the_remaining_tokens(loaded):
    model, inputs = loaded
    prompt = compress_inputs(model, inputs, "norm_topk", retention=0.5)
    assert [len(row[0].tokens) for row in prompt.visuals] == [NUM_LEFT // 2, 3 * 20 // 2]  # a first frame repeats none


def test_methods_see_tokens_on_their_places(loaded):
    model, inputs = loaded
    with pytest.raises(ValueError, match="lattice"):
        compress_inputs(model, inputs, "average")
    (visual,) = compress_inputs(model, inputs, "stride", retention=0.5).visuals[0]
    adapter = adapter_for(model)
    encoded = adapter.encode(model, inputs)[0].tokens.flatten(0, 2)
    assert torch.equal(visual.tokens.features, encoded[visual.place])


def test_a_video_without_repetition_fills_its_lattice(loaded):
    model, _ = loaded
    _, processor = build("video_llama_3")
    inputs = make_inputs(processor, [make_frames(4, 32, 40), "Why?"])
    assert bool(inputs["video_compression_mask"].all())
    ((visual,),) = compress_inputs(model, inputs, Average()).visuals
    assert visual.tokens.shape == (4, 2, 2)
