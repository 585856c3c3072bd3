"""On a GPU in bf16: a block without a method changes nothing; repeated frames are encoded once, and methods answer."""

import pytest
import torch

import stgridpool
from native_models.families import BUILDERS, DENSE
from native_models.prompts import make_frames, make_inputs
from stgridpool.adapters import compress_inputs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
FRAMES = make_frames(8, 48, 64)
OPTIONS = {"max_new_tokens": 5, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}


@pytest.fixture(scope="module", params=DENSE)
def on_gpu(request):
    """A model of its own, because moving changes it, and a function that makes the inputs of a prompt with frames."""
    model, processor = BUILDERS[request.param]()

    def inputs_of(frames):
        return make_inputs(processor, ["Look:", frames, "What happens?"]).to("cuda", torch.bfloat16)

    return model.to("cuda", torch.bfloat16), inputs_of


def generate(model, inputs):
    output = model.generate(**inputs, **OPTIONS)
    return output.sequences, torch.stack(output.logits)


def test_a_block_without_a_method_changes_nothing(on_gpu):
    model, inputs = on_gpu[0], on_gpu[1](FRAMES)
    expected_ids, expected = generate(model, inputs)
    with stgridpool.compress(model, None):
        ids, logits = generate(model, inputs)
    assert torch.equal(ids, expected_ids)
    assert torch.equal(logits, expected)


def test_frames_that_repeat_are_encoded_once(on_gpu):
    model, inputs = on_gpu[0], on_gpu[1](FRAMES[[0, 1, 0, 1, 2, 3, 2, 3]])
    with torch.no_grad():
        every, once = (compress_inputs(model, inputs, None, reuse_frames=reuse) for reuse in (False, True))
    assert (every.reused_frames, once.reused_frames) == (0, 4)
    expected = every.inputs["inputs_embeds"].float()
    difference = (once.inputs["inputs_embeds"].float() - expected).abs().max()
    assert difference <= 2e-2 * expected.abs().max()  # another batch size may round differently


@pytest.mark.parametrize(
    ("method", "retention"), [("norm_topk", 0.6), ("st_gridpool", 0.6), ("framefusion_merge", 0.6), ("fastv", 0.8)]
)
def test_methods_answer(on_gpu, method, retention):
    model, inputs = on_gpu[0], on_gpu[1](FRAMES)
    if method == "fastv" and model.config.model_type in ("qwen3_5", "molmo2"):
        pytest.skip(f"{model.config.model_type} takes no method inside")
    with stgridpool.compress(model, method, retention=retention, of="layer_average") as block:
        ids, logits = generate(model, inputs)
        assert block.last.num_removed > 0 or method == "fastv"
    assert ids.shape[1] == inputs["input_ids"].shape[1] + 5
    assert logits.isfinite().all()
