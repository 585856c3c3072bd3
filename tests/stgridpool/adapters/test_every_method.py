"""Every method runs on the models of three families, and the language model reads as many tokens as it planned."""

import pytest

from native_models.families import build
from native_models.prompts import make_frames, make_inputs
from stgridpool import COMPRESSORS, build_compressor
from stgridpool.adapters import adapter_for, compress_inputs
from stgridpool.compressor import planned_counts

FITTING = {  # options for a tower of 3 layers without its pooling head, and a language model of 4 layers
    "aot": {"shallow": -2, "deep": -1},
    "fastvid": {"importance": "received", "frames": "mean"},
    "flashvid": {"layer": 2},
    "framefusion": {"layer_average": 0.8},
    "holitom": {"layer": 2},
    "pyramid_drop": {"layers": [2, 3], "keep": [0.5, 0.2]},
    "prunevid": {"layer": 2},
    "sparsevlm": {"preset": None, "layers": [2], "keep": [0.5]},
    "st_simdiff": {"layer": 2, "layer_average": 0.8},
}
REFUSED = {
    "earlytom": "acts on frames or in the vision tower",
    "earlytom_frames": "acts on frames or in the vision tower",
    "image_grid": "acts on frames or in the vision tower",
    "oracle_frames": "ListedFrames",
    ("qwen3_vl", "framefusion"): "layer must be at least 2",  # DeepStack levels enter below
    ("qwen3_vl", "st_simdiff"): "layer must be at least 2",
}
pytestmark = pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])


@pytest.fixture
def lengths():
    """Function that notes the tokens entering a language model and its last layer: two lists, one number a forward."""
    handles = []

    def watch(model):
        seen = [], []
        for part, noted in zip((model.get_decoder(), model.get_decoder().layers[-1]), seen, strict=True):

            def note(part, args, kwargs, noted=noted):
                given = [*args, kwargs.get("inputs_embeds"), kwargs.get("hidden_states")]
                noted.append(next(one for one in given if one is not None).shape[1])

            handles.append(part.register_forward_pre_hook(note, with_kwargs=True))
        return seen

    yield watch
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("method", COMPRESSORS)
def test_as_many_tokens_as_planned(name, method, lengths):
    model, processor = build(name)
    inputs = make_inputs(processor, [make_frames(8, 32, 32), "What happens?"])
    compressor = build_compressor(method, **FITTING.get(method, {}))
    if reason := REFUSED.get(method) or REFUSED.get((name, method)):
        with pytest.raises(ValueError, match=reason):
            compress_inputs(model, inputs, compressor)
        return
    prompt = compress_inputs(model, inputs, compressor)
    first, last = lengths(model)
    with prompt.prefilling(adapter_for(model), model) as inside:
        answer = model.generate(**prompt.inputs, max_new_tokens=2, do_sample=False)
    [[visual]] = prompt.visuals
    text = int((~adapter_for(model).slots(model, inputs)).sum()) + len(visual.run.tail)
    assert answer.shape[1] == first[0] + 2
    assert first[0] == text + len(visual.tokens)
    front = [step for step in compressor.steps() if not step.is_inside]
    source = visual.run.visual.patches if visual.from_patches else visual.run.visual.tokens
    planned = planned_counts(front, tuple(source.shape[:3]))[-1] if front else len(visual.run.slots)
    assert planned in (None, len(visual.tokens))
    remaining = inside.plans[0][-1][0].rows if inside else visual.tokens.features
    assert last[0] == text + len(remaining)
