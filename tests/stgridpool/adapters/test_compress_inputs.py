"""Budgets, images, places and mismatches."""

import copy
import math

import pytest
import torch

import stgridpool
from native_models.families import build
from native_models.prompts import load_with, make_frames, make_inputs
from stgridpool import Average, Chain, build_compressor
from stgridpool.adapters import adapter_for, compress_inputs, visual_runs

NAMES = ["llava_onevision", "qwen2_5_vl", "qwen3_vl"]
PROMPT = [make_frames(8, 48, 56), "What happens?"]
pytestmark = pytest.mark.adapters


@pytest.mark.parametrize("retention", [0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_retention_is_a_share_of_what_the_unmodified_model_reads(name, retention):
    """OneVision's methods see 49 patches per frame, but the unmodified model reads 16 tokens; these count."""
    model, inputs = load_with(name, [make_frames(4), "One?"], [make_frames(4, 56, 30, seed=1), "And two?"])
    prompt = compress_inputs(model, inputs, "divprune", retention=retention)
    for (visual,) in prompt.visuals:
        assert abs(len(visual.tokens) - retention * math.prod(visual.run.shape)) < 1


@pytest.mark.parametrize("name", NAMES)
def test_retention_over_layers_is_met_inside(name):
    """All tokens in 2 layers and half of them in 2 are 0.75 on average."""
    model, inputs = load_with(name, PROMPT)
    with stgridpool.compress(model, build_compressor("fastv", layer=2), retention=0.75, of="layer_average") as block:
        output = model.generate(
            **inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, output_hidden_states=True
        )
    assert block.last.num_removed == 0
    lengths = [states.shape[1] for states in output.hidden_states[0]]
    (visual,) = block.last.visuals[0]
    assert lengths[0] - lengths[3] == math.prod(visual.run.shape) // 2


def test_a_share_is_met_behind_a_method_whose_share_the_length_decides():
    """Groups of four frames leave one of two and one of three; patches are of two frames each."""
    model, inputs = load_with("qwen2_5_vl", [make_frames(4), make_frames(6), "What happens?"])
    prompt = compress_inputs(model, inputs, "temporal_average+norm_topk", retention=0.25)
    [visuals] = prompt.visuals
    assert [visual.run.shape[0] for visual in visuals] == [2, 3]
    assert [len(visual.tokens) for visual in visuals] == [math.prod(visual.run.shape) // 4 for visual in visuals]


@pytest.mark.parametrize("name", ["framefusion", "st_simdiff", "downsample+framefusion", "downsample+st_simdiff"])
def test_only_the_mean_over_layers_that_is_asked_for_is_judged(name):
    """Four layers allow for no mean of 0.3, the default of these methods, or hardly any; they do for 0.6."""
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    with stgridpool.compress(model, name, retention=0.6, of="layer_average") as block:
        output = model.generate(
            **inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, output_hidden_states=True
        )
    (visual,) = block.last.visuals[0]
    total, prompt = math.prod(visual.run.shape), inputs["input_ids"].shape[1]
    held = sum(total - (prompt - states.shape[1]) for states in output.hidden_states[0][1:])  # after each layer
    assert 0.6 * 4 * total - 4 < held <= 0.6 * 4 * total


@pytest.mark.parametrize("name", ["framefusion", "st_simdiff"])
def test_a_mean_that_is_too_small_is_refused_before_a_prompt(name):
    model, _ = load_with("qwen2_5_vl", PROMPT)
    with pytest.raises(ValueError, match=r"layer_average must be above ./4.* got 0\.2"):
        stgridpool.compress(model, name, retention=0.2, of="layer_average")
    with pytest.raises(ValueError, match=r"layer_average must be above ./4.* got 0\.2"):
        stgridpool.compress(model, f"downsample+{name}", **{name: {"layer_average": 0.2}})


def test_retention_without_a_method_or_out_of_range_is_refused():
    model, _ = load_with("qwen2_5_vl", PROMPT)
    with pytest.raises(ValueError, match=r"retention=0.5 needs a compressor to meet it, got none"):
        stgridpool.compress(model, "none", retention=0.5)
    with pytest.raises(ValueError, match="retention must be"):
        stgridpool.compress(model, "stride", retention=1.5)
    with pytest.raises(ValueError, match=r"options \['stride'\] need the name of a method"):
        stgridpool.compress(model, Average(), stride=3)
    with pytest.raises(TypeError, match="compressor must be a Compressor, a name or None, got int"):
        stgridpool.compress(model, 3)


def test_patches_of_onevision_are_those_in_front_of_its_pooling():
    model, inputs = load_with("llava_onevision", PROMPT)
    for compressor, shape in (("nsp", (8, 3, 3)), ("bilinear", (8, 4, 4)), ("adaptive_pool", None)):
        visual = compress_inputs(model, inputs, compressor).visuals[0][0]
        assert visual.from_patches
        assert visual.plan.num_sources == 8 * 49
        assert shape in (None, visual.tokens.shape)
    own = compress_inputs(model, inputs, None).visuals[0][0]
    pooled = compress_inputs(model, inputs, "bilinear").visuals[0][0]
    torch.testing.assert_close(pooled.tokens.features, own.tokens.features, rtol=1e-5, atol=1e-5)
    behind = compress_inputs(model, inputs, "visionzip").visuals[0][0]
    assert not behind.from_patches
    assert behind.plan.num_sources == 8 * 16


def test_more_tokens_than_placeholders():
    """Seven by seven tokens a frame stand where the unmodified prompt has four by four; their order stays."""
    model, inputs = load_with("llava_onevision", PROMPT)
    compressor = build_compressor("adaptive_pool", size=7)
    prompt = compress_inputs(model, inputs, compressor)
    assert prompt.num_removed == 8 * (16 - 49)
    (visual,) = prompt.visuals[0]
    assert torch.equal(prompt.inputs["inputs_embeds"][prompt.visual_mask], visual.tokens.features)


@pytest.mark.parametrize("name", NAMES)
def test_plans_go_through_deepstack_levels_and_the_newline_stays(name):
    model, inputs = load_with(name, PROMPT)
    prompt = compress_inputs(model, inputs, "average")
    (visual,) = prompt.visuals[0]
    with torch.no_grad():
        (run,) = visual_runs(adapter_for(model), model, inputs)
    for level, source in zip(prompt.levels, run.visual.levels, strict=True):
        torch.testing.assert_close(level, visual.plan.apply(source))
    assert len(prompt.levels) == 2 * (name == "qwen3_vl")
    if name == "llava_onevision":
        place = int(prompt.visual_mask[0].nonzero()[-1]) + 1
        assert torch.equal(prompt.inputs["inputs_embeds"][0, place], model.model.image_newline)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_compressed_is_freed_before_answers_are_generated(name):
    """A prompt of tokens that keep their values holds no storage as large as those before compression."""
    model, inputs = load_with(name, PROMPT)
    with stgridpool.compress(model, "visionzip", retention=0.2) as block:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    (visual,) = block.last.visuals[0]
    source = visual.run.visual
    assert all(part is None or part.is_meta for part in (source.tokens, source.patches))
    assert (source.levels, dict(source.evidence)) == ((), {})
    dense = len(visual.run.slots) * visual.tokens.features.shape[1] * visual.tokens.features.element_size()
    held = [visual.tokens.features, *visual.tokens.levels, *visual.evidence.values()]
    assert all(part.untyped_storage().nbytes() < dense for part in held)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_images_are_compressed_if_asked_for(name):
    frames = make_frames(4, 48, 40)
    model, inputs = load_with(name, ["See", frames[0], "and", frames, "What?"])
    plain, dense, both = (
        compress_inputs(model, inputs, compressor, images=images)
        for compressor, images in (("stride", False), (None, True), ("stride", True))
    )
    assert [len(one.visuals[0]) for one in (plain, dense, both)] == [1, 2, 2]
    assert dense.num_removed == 0 < plain.num_removed < both.num_removed
    with torch.no_grad():
        expected = model(**inputs).logits
        with dense.prefilling(adapter_for(model), model):
            torch.testing.assert_close(model(**dense.forward_inputs).logits, expected, rtol=0, atol=0)
    for one in both.visuals[0]:
        assert abs(len(one.tokens) - 0.25 * math.prod(one.run.shape)) < 1
    with stgridpool.compress(model, "stride", images=True) as block:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        assert torch.equal(block.last.inputs["input_ids"], both.inputs["input_ids"])


@pytest.mark.parametrize("retention", [0.75, 0.9])
def test_retention_over_layers_is_met_inside_for_images_alone(retention):
    """All tokens in 2 layers and a share s of them in 2 are (1 + s) / 2 on average."""
    model, inputs = load_with("qwen2_5_vl", ["See", make_frames(1, 80, 80)[0], "What is it?"])
    options = {"images": True, "layer": 2, "retention": retention}
    with stgridpool.compress(model, "fastv", of="layer_average", **options) as block:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    [[[plan]]] = block.last.inside.last.plans
    assert len(plan.rows) == round((2 * retention - 1) * 100)


def test_images_of_onevision_are_refused():
    frames = make_frames(4)
    model, inputs = load_with("llava_onevision", ["See", frames[0], "and", frames, "What?"])
    with pytest.raises(ValueError, match="images of llava_onevision cannot be compressed; leave out images=True"):
        compress_inputs(model, inputs, "stride", images=True)


def test_counts_that_do_not_match_are_refused():
    model, inputs = load_with("qwen2_5_vl", ["A", make_frames(4), "B"], ["C", make_frames(8), "D"])
    cut = inputs | {name: inputs[name][:, :-40] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    with pytest.raises(ValueError, match=r"placeholders for the tokens of each video, .* have \[30, 60\] tokens"):
        compress_inputs(model, cut, "stride")
    mixed = inputs | {name: inputs[name].flip(0) for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="do not match its placeholders; other visuals of the batch make up"):
        compress_inputs(model, mixed, "stride")


def test_methods_that_act_on_frames_are_refused():
    class OnFrames(Average):
        def steps(self):
            return (stgridpool.Step(self, "frames"),)

    model, inputs = load_with("qwen2_5_vl", PROMPT)
    with pytest.raises(ValueError, match="acts on frames or in the vision tower, which only"):
        compress_inputs(model, inputs, Chain((OnFrames(), Average(kernel_size=3))))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_kept_and_stays_exact(name):
    model, processor = build(name)
    model = copy.deepcopy(model).to(torch.bfloat16)
    inputs = make_inputs(processor, [make_frames(4), "What happens?"])
    prompt = compress_inputs(model, inputs, None, positions="hf")
    assert prompt.inputs["inputs_embeds"].dtype == torch.bfloat16
    with torch.no_grad():
        expected = model(**inputs).logits
        with prompt.prefilling(adapter_for(model), model):
            assert torch.equal(model(**prompt.forward_inputs).logits, expected)
    with stgridpool.compress(model, "visionzip", retention=0.3) as block:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert block.last.inputs["inputs_embeds"].dtype == torch.bfloat16
    assert all(level.dtype == torch.bfloat16 for level in block.last.levels)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_not_changed(name):
    model, inputs = load_with(name, PROMPT)
    before = {key: copy.deepcopy(value) for key, value in inputs.items()}
    with stgridpool.compress(model, "st_gridpool"):
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert before.keys() == inputs.keys()
    for key, value in before.items():
        assert torch.equal(torch.as_tensor(inputs[key]), torch.as_tensor(value)), key
