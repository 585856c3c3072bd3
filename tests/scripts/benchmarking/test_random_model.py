"""A model with random weights: its sizes, its dtype, its seed, and that it answers with a letter."""

import pytest
import torch


@pytest.fixture(scope="module")
def make(benchmarking, small):
    def make(dtype=torch.float32, seed=0, device="cpu"):
        return benchmarking("random_model").make_model(small, ["Which one?"], dtype, torch.device(device), seed)

    return make


def test_sizes_follow_the_geometry(make, small):
    model = make(torch.bfloat16).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.get_vision_tower().num_patches == small.patches == 16
    assert model.get_output_embeddings().weight.shape == (2048, 64)
    assert model.model.layers[0].self_attn.k_proj.weight.shape == (small.key_value_width, 64)
    encoder = model.get_vision_tower().vision_tower.encoder
    assert len(encoder.layers) == 2
    assert encoder.layers[0].mlp.fc1.weight.shape == (48, 32)


def test_the_seed_says_it_all(make):
    first, same, other = (make(seed=seed).model.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_it_answers_with_a_letter_and_stops(make):
    parts = make()
    for question in ("Which one?", "What?"):
        ids = parts.tokenizer(f"{question}\n", return_tensors="pt").input_ids
        answer = parts.model.generate(ids, max_new_tokens=5, do_sample=False)[0]
        assert parts.tokenizer.decode(answer) in [f"{letter}<|im_end|>" for letter in "ABCD"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_weights_are_made_on_the_device(make):
    model = make(torch.bfloat16, device="cuda").model
    assert {parameter.device.type for parameter in [*model.parameters(), *model.buffers()]} == {"cuda"}
    assert torch.cuda.memory_allocated() >= sum(parameter.nbytes for parameter in model.parameters())
