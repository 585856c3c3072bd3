"""PyramidDrop against the original's choices, made in a decoder whose layers change nothing."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from stgridpool import PyramidDrop, VideoTokens, build_compressor, compress_tokens
from stgridpool.compressor import planned_counts
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.evidence import QueryAttention

NONE = torch.empty(0, dtype=torch.long)


@pytest.fixture(scope="module")
def cases(golden):
    """Stages of each pyramid, with all tensors."""
    folder = golden / "methods" / "fastv_pyramiddrop"
    tensors = load_file(folder / "fastv_pyramiddrop.safetensors")
    pyramids = {}
    for variant in json.loads((folder / "manifest.json").read_text())["variants"]:
        if variant["kind"] == "pyramiddrop":
            pyramids.setdefault(variant["key"], []).append(variant)
    return pyramids, tensors


def identity_decoder(stages, tensors):
    """A Llama with the queries and keys of the stages in layers 1, 2, ..., which pass states on as they are."""
    first = stages[0]
    config = LlamaConfig(
        vocab_size=3,
        hidden_size=tensors[f"{first['key']}.h"].shape[1],
        intermediate_size=4,
        num_hidden_layers=len(stages) + 1,
        num_attention_heads=first["heads"],
        num_key_value_heads=first["kv_heads"],
        head_dim=first["head_dim"],
        rms_norm_eps=1e-6,
    )
    assert config.rope_parameters["rope_theta"] == first["rope_theta"]
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for number, stage in enumerate(stages):
            attention = model.model.layers[number + 1].self_attn
            attention.q_proj.weight.copy_(tensors[f"{stage['key']}.stage{stage['stage']}.wq"])
            attention.k_proj.weight.copy_(tensors[f"{stage['key']}.stage{stage['stage']}.wk"])
    return model


@torch.inference_mode()
def test_choices_of_the_original(cases):
    pyramids, tensors = cases
    assert len(pyramids) == 3
    for key, stages in pyramids.items():
        model, num_visual = identity_decoder(stages, tensors), stages[0]["N"]
        layers = tuple(range(1, len(stages) + 1))
        method = PyramidDrop(layers, tuple(stage["ratio"] for stage in stages), preset="released")
        steps = DecoderSteps(TransformersDecoder(model), method.steps())
        span = VisualSpan(stages[0]["sys"] + torch.arange(num_visual), (1, 1, num_visual), NONE)
        with steps.prompts([[span]]) as prompts:
            model(inputs_embeds=tensors[f"{key}.h"].float()[None])
        kept = torch.arange(num_visual)
        for stage, [plan], mask in zip(stages, prompts.plans[0], prompts.kept, strict=True):
            assert stage["sys"] + plan.num_sources + stage["text"] == stage["seq_len"]
            kept = kept[plan.kept()]
            assert len(kept) == stage["keep"]
            assert kept.tolist() == tensors[f"{key}.stage{stage['stage']}.kept_visual"].tolist()
            assert int(mask.sum()) == stages[0]["sys"] + stages[0]["text"] + stage["keep"]


def test_counts_are_parts_of_the_tokens_in_front_of_the_first_drop():
    """0.4 / 0.7 of int(5 * 0.7) would be 1, int(5 * 0.4) is 2."""
    method = PyramidDrop(layers=(1, 2), keep=(0.7, 0.4))
    for total, expected in ((5, [3, 2]), (1, [1, 1]), (2, [1, 1]), (49, [34, 19]), (1000, [700, 400])):
        tokens = VideoTokens(torch.zeros(total, 1), (2, 1, total), torch.arange(total))
        evidence = {QueryAttention(layer): torch.rand(total) for layer in (1, 2)}
        left, plan = compress_tokens(method, tokens, evidence)
        assert planned_counts(method.steps(), (2, 1, total), total) == expected
        assert method.planned_count((2, 1, total), total) == method.planned_count((1, 1, total)) == expected[-1]
        assert len(plan) == expected[-1]
        assert left.before == (total, expected[0])
    chain = build_compressor("average+pyramid_drop", pyramid_drop={"layers": [1, 2], "keep": [0.7, 0.4]})
    assert planned_counts(chain.steps(), (5, 2, 2)) == [5, 3, 2]


def test_layers_follow_the_depth():
    assert [step.place for step in PyramidDrop().steps()] == [8, 16, 24]
    assert PyramidDrop().for_depth(32).layers == (8, 16, 24)
    assert PyramidDrop().for_depth(28).layers == (7, 14, 21)
    assert PyramidDrop().for_depth(20).layers == (5, 10, 15)
    for depth in (25, 28, 32, 80):
        assert PyramidDrop(preset="released").for_depth(depth).layers == (8, 16, 24)
    assert PyramidDrop((3, 5, 9)).for_depth(28) == PyramidDrop((3, 5, 9))
    assert [step.positions for step in PyramidDrop(positions="survive").steps()] == ["survive"] * 3
    assert [step.positions for step in PyramidDrop().steps()] == ["reassign"] * 3
    assert PyramidDrop().needs == {QueryAttention(layer) for layer in (8, 16, 24)}
    assert PyramidDrop().query_aware
    message = r"layers must ascend and be below the model's 20 layers, got \(8, 16, 24\): set layers"
    with pytest.raises(ValueError, match=f"{message}$"):
        PyramidDrop((8, 16, 24)).for_depth(20)
    with pytest.raises(ValueError, match=f"{message} or preset='corrected'$"):
        PyramidDrop(preset="released").for_depth(20)
    with pytest.raises(ValueError, match=r"the model's 2 layers, got \(0, 1, 1\): set layers$"):
        PyramidDrop().for_depth(2)


def test_a_mean_over_layers_scales_the_fractions():
    """32 layers: 8 + 8 * (s/2 + s/4 + s/8) = 0.4 * 32, so that s = 4.8 / 7."""
    settled = PyramidDrop(layer_average=0.4).for_depth(32)
    assert settled.layer_average is None
    assert settled.keep == pytest.approx([4.8 / 7 / 2**power for power in (1, 2, 3)])
    chain = build_compressor("average+pyramid_drop", pyramid_drop={"layer_average": 0.4}).for_depth(32)
    assert chain.methods[1] == settled
    with pytest.raises(ValueError, match=r"layer_average=0\.4 depends on the language model: call for_depth first"):
        PyramidDrop(layer_average=0.4).steps()
    with pytest.raises(ValueError, match="8 of 32 layers keep all tokens"):
        PyramidDrop(layer_average=0.2).for_depth(32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ()}, r"keep must be a list of fractions, at least one, got \(\)"),
        ({"keep": 0.5}, "keep must be a list of fractions, at least one, got 0.5"),
        ({"keep": (0.5, 0.6, 0.1)}, "keep must fall from layer to layer"),
        ({"keep": (0.5, 0.2, 0)}, "keep must be a number above 0 and at most 1, got 0"),
        ({"keep": (0.5, 0.2)}, "layers and keep must have the same length"),
        ({"layers": (4, 2, 8)}, r"layers must ascend, got \(4, 2, 8\)"),
        ({"layers": (4, 2.5, 8)}, "layers must be a list of whole numbers from 0 to 1000"),
        ({"layer_average": 0}, "layer_average must be a number above 0"),
        ({"preset": "paper"}, "preset cannot be 'paper'"),
        ({"positions": "keep"}, "positions cannot be 'keep'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PyramidDrop(**options)
