"""Compressors inside native language models, and methods that look at the question."""

import pytest
import torch

import stgridpool
from native_models.families import BUILDERS, DENSE, build
from native_models.prompts import load_with, make_frames
from stgridpool import Compressor, Plan, Step
from stgridpool.adapters import adapter_for, compress_inputs
from stgridpool.decoder.kv_cache import CACHE_ARGUMENT

NAMES = ["llava_onevision", "qwen2_5_vl", "qwen3_vl"]
REFUSED = {
    "qwen3_5": "needs full attention, got layers of",
    "molmo2": "which it cannot in molmo2: there visual tokens attend to one another in both directions",
}
OPTIONS = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
LAYER = 2  # the first after the DeepStack levels of the tiny Qwen3-VL
PROMPT = [make_frames(6), "What happens?"]
pytestmark = pytest.mark.adapters


class Late(Compressor):
    """Every third token, chosen before a decoder layer."""

    needs_maps = False
    positions = "survive"

    def plan(self, tokens, evidence):
        return Plan.keep(torch.arange(0, len(tokens), 3), len(tokens))

    def steps(self):
        return (Step(self, LAYER, self.positions),)


class LateReassigned(Late):
    positions = "reassign"


class LateAtOnce(Late):
    def steps(self):
        return (Step(self, 0, "survive"),)


@pytest.mark.parametrize("name", [name for name in DENSE if name not in REFUSED])
def test_dropping_late_equals_masking_late(name):
    """Layers from LAYER on must not look at dropped tokens; those before it see all of them."""
    model, inputs = load_with(name, [make_frames(6), "What happens?"], ["Look", make_frames(6, 30, 20, seed=1), "Why?"])
    adapter = adapter_for(model)
    dense = compress_inputs(model, inputs, None)
    hidden = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
    for row, visuals in enumerate(dense.visuals):
        for visual in visuals:
            hidden[row, visual.run.slots] = True
            hidden[row, visual.run.slots[::3]] = False
    length = hidden.shape[1]
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    closed = (later | (inputs["attention_mask"] == 0)[:, None])[:, None]  # (B, 1, L, L)

    def mask(module, args, kwargs):
        barred = closed | hidden[:, None, None]
        barred = barred & ~torch.eye(length, dtype=torch.bool)  # a row that sees nothing would be NaN
        return args, kwargs | {"attention_mask": ~barred}

    handles = [layer.register_forward_pre_hook(mask, with_kwargs=True) for layer in model.get_decoder().layers[LAYER:]]
    with torch.no_grad():
        with dense.prefilling(adapter, model):
            expected = model(**dense.forward_inputs).logits[:, -1]
        for handle in handles:
            handle.remove()
        prompt = compress_inputs(model, inputs, Late())
        with prompt.prefilling(adapter, model) as inside:
            logits = model(**prompt.forward_inputs).logits[:, -1]
    slots = [visual.run.slots for row in dense.visuals for visual in row]
    assert [len(row[0][0]) for row in inside.plans] == [-(-len(one) // 3) for one in slots]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("compressor", [Late(), LateReassigned(), "fastv", "average+sttm"])
@pytest.mark.parametrize("name", NAMES)
def test_beams_batches_and_forwards_by_hand_agree(name, compressor):
    options = {}
    if isinstance(compressor, str):
        options = {"fastv": {"layer": LAYER}, "average+sttm": {"sttm": {"layer": LAYER, "retention": 0.3}}}[compressor]
    model, inputs = load_with(name, PROMPT)
    with stgridpool.compress(model, compressor, **options) as block, torch.no_grad():
        output = model.generate(**inputs, **OPTIONS)
        expected, ids = torch.stack(output.logits, 1), output.sequences[0, -3:]
        assert block.last.inside is not None
        beams = model.generate(**inputs, max_new_tokens=3, do_sample=False, num_beams=2, num_return_sequences=2)
        assert beams.shape == (2, inputs["input_ids"].shape[1] + 3)
        first = model(**inputs, use_cache=True)
        logits, cache = [first.logits[:, -1]], first[CACHE_ARGUMENT]
        for one in ids[:2]:
            output = model(input_ids=one.view(1, 1), use_cache=True, **{CACHE_ARGUMENT: cache})
            logits.append(output.logits[:, -1])
        assert cache.layers[-1].get_seq_length() < cache.layers[0].get_seq_length()
    torch.testing.assert_close(torch.stack(logits, 1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_forwards_by_hand_count_what_a_step_at_layer_0_removed(name, with_mask):
    """Tokens after the prompts stand behind all of their positions, though no layer holds the whole prompts."""
    model, inputs = load_with(name, ["Look", *PROMPT], [make_frames(6, seed=1), "Why?"])
    with stgridpool.compress(model, LateAtOnce()), torch.no_grad():
        output = model.generate(**inputs, **OPTIONS)
        first = model(**inputs, use_cache=True)
        cache, mask = {CACHE_ARGUMENT: first[CACHE_ARGUMENT]}, inputs["attention_mask"]
        later = [first.logits[:, -1]]
        for one in output.sequences[:, -3:-1].T:
            mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
            given = {"attention_mask": mask} if with_mask else {}
            later.append(model(input_ids=one[:, None], use_cache=True, **cache, **given).logits[:, -1])
    torch.testing.assert_close(torch.stack(later, 1), torch.stack(output.logits, 1), rtol=1e-4, atol=1e-4)


def test_layers_with_deepstack_levels_are_refused():
    model, _ = load_with("qwen3_vl", PROMPT)
    with pytest.raises(ValueError, match=r"got 1 of FastV.*: visual features enter this model's first 2"):
        stgridpool.compress(model, "fastv", layer=1)


def test_a_static_cache_is_refused():
    model, inputs = load_with("llava_onevision", PROMPT)
    with stgridpool.compress(model, Late()), pytest.raises(ValueError, match=r"needs a mask of \(batch, positions\)"):
        model.generate(**inputs, **OPTIONS, cache_implementation="static")


@pytest.mark.parametrize("name", NAMES)
def test_a_method_that_looks_at_the_question_depends_on_it(name):
    kept = []
    for question in ("What happens?", "Zzzzzzz!!!!"):
        model, inputs = load_with(name, [make_frames(6), question])
        kept.append(compress_inputs(model, inputs, "cdpruner", retention=0.2).visuals[0][0].plan.kept())
    assert not torch.equal(*kept)


@pytest.mark.parametrize("name", REFUSED)
def test_language_models_in_which_nothing_can_act(name):
    if name not in BUILDERS:
        pytest.skip(f"this transformers lacks {name}")
    with pytest.raises(ValueError, match=REFUSED[name]):
        stgridpool.compress(build(name)[0], "fastv", layer=LAYER)
