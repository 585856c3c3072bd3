"""stgridpool.compress: the block, what it leaves behind, and calls that it refuses."""

import copy

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DynamicCache, LogitsProcessorList, StaticCache, StoppingCriteriaList, TextStreamer
from transformers.video_utils import load_video

import stgridpool
from native_models.families import BUILDERS, build
from native_models.prompts import load_with, make_frames, make_inputs, make_text
from stgridpool.adapters import adapter_for, compress_inputs
from stgridpool.decoder.kv_cache import CACHE_ARGUMENT

GREEDY = {"max_new_tokens": 3, "do_sample": False}
LOGITS = {"output_logits": True, "return_dict_in_generate": True}
PROMPT = [make_frames(4), "What happens?"]
pytestmark = pytest.mark.adapters


def state(model):
    """All that could be changed: attributes, hooks, and the classes of every part."""
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks), type(part)) for part in model.modules()]
    inner = [dict(vars(part)) for part in (model, model.model, model.get_decoder())]
    return inner, hooks, model.config.to_dict()


@pytest.mark.parametrize("name", BUILDERS)
def test_the_block_answers_as_the_function_under_it_and_leaves_nothing(name):
    model, inputs = load_with(name, PROMPT)
    stock = model.generate(**inputs, **GREEDY)  # some towers register hooks of transformers' own when they first run
    before, length = state(model), inputs["input_ids"].shape[1]
    prompt = compress_inputs(model, inputs, "stride", retention=0.5)
    assert prompt.num_removed > 0
    with prompt.prefilling(adapter_for(model), model):
        expected = model.generate(**prompt.inputs, **GREEDY)[:, -3:]
    with stgridpool.compress(model, "stride", retention=0.5) as block:
        output = model.generate(**inputs, **GREEDY)
        assert block.last.num_removed == prompt.num_removed
    assert torch.equal(output, torch.cat([inputs["input_ids"], expected], dim=1))
    assert output.shape[1] == length + 3
    assert state(model) == before
    assert torch.equal(model.generate(**inputs, **GREEDY), stock)


def test_positions_of_a_method_are_not_those_of_the_prompt():
    model = build("qwen2_5_vl")
    with pytest.raises(ValueError, match=r"one of reference, .*'merge'.* build_compressor\(NAME, positions='merge'\)"):
        stgridpool.compress(model, "fastv", positions="merge")
    with pytest.raises(ValueError, match="positions cannot be 'surviv', did you mean 'survive'"):
        stgridpool.compress(model, "fastv", positions="surviv")


@pytest.mark.parametrize(
    ("name", "positions"),
    [(name, "reference") for name in BUILDERS]
    + [(name, positions) for name in ("llava_onevision", "qwen2_5_vl") for positions in ("survive", "reassign")],
)
def test_forwards_by_hand_agree_with_generate(name, positions):
    model, inputs = load_with(name, PROMPT)
    with stgridpool.compress(model, "stride", retention=0.5, positions=positions), torch.no_grad():
        expected = model.generate(**inputs, **GREEDY)[0, -3:]
        output, ids = model(**inputs, use_cache=True), []
        for _ in range(3):
            ids.append(output.logits[:, -1].argmax(-1))
            cache = output[CACHE_ARGUMENT]
            output = model(input_ids=ids[-1][:, None], use_cache=True, **{CACHE_ARGUMENT: cache})
    assert torch.cat(ids).tolist() == expected.tolist()


@pytest.mark.parametrize("mask", ["original", "compressed", None])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_forwards_by_hand_know_padding_that_compression_made(name, mask):
    """Prompts of equal lengths whose videos leave unequal numbers of tokens."""
    model, processor = build(name)
    still = np.repeat(make_frames(1), 4, axis=0)
    inputs = make_inputs(processor, [make_frames(4), "What?"], [still, "What?"])
    assert bool(inputs["attention_mask"].all())
    with stgridpool.compress(model, "framefusion_merge", threshold=0.9) as block, torch.no_grad():
        expected = torch.stack(model.generate(**inputs, **GREEDY, **LOGITS).logits, dim=1)
        assert not bool(block.last.inputs["attention_mask"].all())
        output = model(**inputs, use_cache=True)
        logits, masks = [output.logits[:, -1]], {"original": inputs["attention_mask"], None: None}
        masks["compressed"] = block.last.inputs["attention_mask"]
        for count in range(1, 3):
            ids, given = logits[-1].argmax(-1, keepdim=True), masks[mask]
            given = None if given is None else torch.cat([given, given.new_ones(2, count)], dim=1)
            cache = {CACHE_ARGUMENT: output[CACHE_ARGUMENT]}
            output = model(input_ids=ids, attention_mask=given, use_cache=True, **cache)
            logits.append(output.logits[:, -1])
        with pytest.raises(ValueError, match="attention_mask must cover"):
            model(input_ids=ids, attention_mask=torch.ones(2, 7), use_cache=True, **cache)
    torch.testing.assert_close(torch.stack(logits, dim=1), expected, rtol=1e-4, atol=1e-4)


def test_another_cache_is_refused():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    with stgridpool.compress(model, "stride"), torch.no_grad():
        cache = copy.deepcopy(model(**inputs, use_cache=True)[CACHE_ARGUMENT])
        with pytest.raises(ValueError, match="is not the one of the latest forward with videos"):
            model(input_ids=inputs["input_ids"][:, -1:], use_cache=True, **{CACHE_ARGUMENT: cache})
        with pytest.raises(ValueError, match="prompts must begin with an empty cache"):
            model.generate(input_ids=inputs["input_ids"], **GREEDY, **{CACHE_ARGUMENT: cache})


def test_a_cache_of_an_earlier_prompt_is_refused():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    with stgridpool.compress(model, "stride"), torch.no_grad():
        cache = model(**inputs, use_cache=True)[CACHE_ARGUMENT]
        model.generate(**inputs, **GREEDY)
        with pytest.raises(ValueError, match="is not the one of the latest forward with videos"):
            model(input_ids=torch.tensor([[5]]), **{CACHE_ARGUMENT: cache})


def test_a_conversation_without_videos_goes_on_beside_them():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    first, second = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        expected = model(input_ids=second).logits[:, -2:]
    answer = model.generate(input_ids=second, **GREEDY)
    for order in ("video first", "text first"):
        with stgridpool.compress(model, "stride"), torch.no_grad():
            if order == "video first":
                model(**inputs, use_cache=True)
            cache = model(input_ids=first, use_cache=True)[CACHE_ARGUMENT]
            model.generate(**inputs, **GREEDY)
            logits = model(input_ids=second[:, 3:], use_cache=True, **{CACHE_ARGUMENT: cache}).logits
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
            own = DynamicCache(config=model.config)
            said = model.generate(input_ids=first, **GREEDY, **{CACHE_ARGUMENT: own})
            assert model.generate(input_ids=said, **GREEDY, **{CACHE_ARGUMENT: own}).shape[1] == 3 + 6
            with pytest.raises(ValueError, match="prompts must begin with an empty cache"):
                model.generate(**inputs, **GREEDY, **{CACHE_ARGUMENT: own})
    assert torch.equal(model.generate(input_ids=second, **GREEDY), answer)


def test_features_without_pixels_are_refused():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    given = {"input_ids": inputs["input_ids"], "mm_encoder_outputs": {"video": None}}
    with stgridpool.compress(model, "stride"), pytest.raises(ValueError, match="mm_encoder_outputs"):
        model.generate(**given, **GREEDY)


def test_a_wrapper_is_refused():
    class Wrapper(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.config = model.config

    with pytest.raises(ValueError, match="Wrapper is a wrapper; pass the transformers model inside it"):
        stgridpool.compress(Wrapper(load_with("qwen2_5_vl", PROMPT)[0]), "stride")


def test_nothing_stays_after_an_error():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    before = state(model)
    with pytest.raises(KeyError, match="mine"), stgridpool.compress(model, "stride"):
        raise KeyError("mine")
    with pytest.raises(RuntimeError), stgridpool.compress(model, "stride"):
        model.generate(**inputs | {"pixel_values_videos": inputs["pixel_values_videos"][:, :-1]}, **GREEDY)
    assert state(model) == before


@pytest.mark.parametrize(
    ("name", "method"), [("qwen3_vl", "fastv"), ("qwen3_vl", "visionzip"), ("qwen2_5_vl", "fastv")]
)
def test_nothing_stays_after_generation_that_failed_on_its_way(name, method):
    """Methods that have hooks in the language model, DeepStack levels to hand over, and a tower to watch."""
    model, inputs = load_with(name, PROMPT)
    stock, before = model.generate(**inputs, **GREEDY), state(model)
    options = {"layer": 2} if method == "fastv" else {}
    seen = []

    def fail(ids, scores, **kwargs):
        seen.append(ids)
        raise KeyError("mine")

    with stgridpool.compress(model, method, **options) as block:
        for _ in range(2):
            with pytest.raises(KeyError, match="mine"):
                model.generate(**inputs, **GREEDY, stopping_criteria=StoppingCriteriaList([fail]))
        answer = model.generate(**inputs, **GREEDY)
        assert block.last is not None
    assert len(seen) == 2
    assert state(model) == before
    assert torch.equal(model.generate(**inputs, **GREEDY), stock)
    with stgridpool.compress(model, method, **options):
        assert torch.equal(model.generate(**inputs, **GREEDY), answer)


def test_what_the_instance_had_is_put_back():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    model.forward = own = model.forward
    try:
        with stgridpool.compress(model, "stride"):
            model.generate(**inputs, **GREEDY)
        assert vars(model)["forward"] is own
    finally:
        del model.forward


def test_nesting_and_entering_again_are_errors():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    block = stgridpool.compress(model, "stride")
    with block:
        with pytest.raises(RuntimeError, match="active already"), block:
            pass
        with pytest.raises(RuntimeError, match="instead of nesting, join methods"), stgridpool.compress(model, "evs"):
            pass
        assert model.generate(**inputs, **GREEDY).shape[1] == inputs["input_ids"].shape[1] + 3
    with block:
        model.generate(**inputs, **GREEDY)


def test_an_unsupported_model_is_refused_with_the_supported_ones():
    model, _ = load_with("qwen2_5_vl", PROMPT)
    with pytest.raises(ValueError, match=r"qwen2_5_vl_text.*supported are .*llava_onevision.*To add a family"):
        stgridpool.compress(model.get_decoder(), "stride")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prompt_lookup_num_tokens", 3),
        ("prefill_chunk_size", 8),
        ("guidance_scale", 2.0),
        ("assistant_model", "another"),
        ("custom_generate", "repository"),
        ("position_ids", torch.zeros(1, 1)),
    ],
)
def test_calls_that_would_be_silently_wrong_are_refused(option, value):
    model, inputs = load_with("llava_onevision", PROMPT)
    with stgridpool.compress(model, "stride"), pytest.raises(ValueError, match=f"{option}.* does not work"):
        model.generate(**inputs, **GREEDY, **{option: value})


def test_labels_and_a_used_cache_are_refused():
    model, inputs = load_with("qwen2_5_vl", PROMPT)
    with stgridpool.compress(model, "stride"), torch.no_grad():
        with pytest.raises(ValueError, match="labels have the length of the prompt before compression"):
            model(**inputs, labels=inputs["input_ids"])
        cache = model(**inputs, use_cache=True)[CACHE_ARGUMENT]
        with pytest.raises(ValueError, match="prompts must begin with an empty cache"):
            model.generate(**inputs, **GREEDY, **{CACHE_ARGUMENT: cache})
        model.generate(**inputs, **GREEDY, **{CACHE_ARGUMENT: DynamicCache(config=model.config)})


@pytest.mark.parametrize("name", ["llava_onevision", "qwen3_vl"])
def test_lengths_count_the_original_prompt(name):
    model, inputs = load_with(name, PROMPT)
    length = inputs["input_ids"].shape[1]
    config = type(model.generation_config)(max_length=length + 3, do_sample=False)
    with stgridpool.compress(model, "stride"):
        assert model.generate(**inputs, max_length=length + 3, do_sample=False).shape[1] == length + 3
        assert model.generate(**inputs, generation_config=config).shape[1] == length + 3
        assert config.max_length == length + 3
        assert model.generate(**inputs, do_sample=False).shape[1] == length + 20  # transformers' default


def test_users_own_code_sees_the_original_prompt(capsys):
    model, processor = build("llava_onevision")
    inputs = make_inputs(processor, [make_frames(4), "What happens?"])
    seen, shown = [], []

    def note(ids, scores):
        seen.append(ids)
        return scores

    def stop_after_two(ids, scores, **kwargs):
        return torch.tensor([ids.shape[1] >= inputs["input_ids"].shape[1] + 2])

    def allow(row, ids):
        shown.append(ids)
        return list(range(model.config.text_config.vocab_size))

    class Streamer(TextStreamer):
        def put(self, value):
            shown.append(value)

        def end(self):
            pass

    with stgridpool.compress(model, "stride"):
        output = model.generate(
            **inputs,
            **GREEDY,
            logits_processor=LogitsProcessorList([note]),
            stopping_criteria=StoppingCriteriaList([stop_after_two]),
            prefix_allowed_tokens_fn=allow,
            streamer=Streamer(processor.tokenizer),
        )
    assert output.shape[1] == inputs["input_ids"].shape[1] + 2
    assert torch.equal(seen[1], output[:, :-1])
    assert torch.equal(shown[0], inputs["input_ids"])
    assert torch.equal(shown[1], inputs["input_ids"][0])


@pytest.mark.parametrize("options", [{"do_sample": True}, {"do_sample": False, "num_beams": 2}])
def test_allowed_tokens_of_several_answers_depend_on_the_original_prompt(options):
    model, processor = build("llava_onevision")
    inputs = make_inputs(processor, [make_frames(4), "What?"], [make_frames(4), "Who?"])
    asked, shown = inputs["input_ids"].tolist(), []

    def allow(row, ids):
        shown.append(asked.index(ids[: len(asked[0])].tolist()))
        return list(range(model.config.text_config.vocab_size))

    with stgridpool.compress(model, "stride"):
        options = {"max_new_tokens": 2, "num_return_sequences": 2} | options
        model.generate(**inputs, prefix_allowed_tokens_fn=allow, **options)
    assert shown == 2 * [0, 0, 1, 1]


def test_guidance_by_the_generation_config_is_refused():
    model, inputs = load_with("llava_onevision", PROMPT)
    config = type(model.generation_config)(guidance_scale=2.0)
    with stgridpool.compress(model, "stride"):
        with pytest.raises(ValueError, match=r"guidance_scale=2\.0 does not work"):
            model.generate(**inputs, generation_config=config)
        model.generate(**inputs, **GREEDY, generation_config=config, guidance_scale=1)


@pytest.mark.parametrize("name", BUILDERS)
def test_static_cache_beams_and_samples(name):
    model, inputs = load_with(name, PROMPT)
    with stgridpool.compress(model, "stride"):
        expected = model.generate(**inputs, **GREEDY)
        assert torch.equal(model.generate(**inputs, **GREEDY, cache_implementation="static"), expected)
        static = StaticCache(config=model.config.get_text_config(), max_cache_len=600)
        assert torch.equal(model.generate(**inputs, **GREEDY, **{CACHE_ARGUMENT: static}), expected)
        beams = model.generate(**inputs, max_new_tokens=3, do_sample=False, num_beams=3, num_return_sequences=2)
        assert beams.shape == (2, expected.shape[1])
        assert torch.equal(beams[:, :-3], inputs["input_ids"].expand(2, -1))


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_videos_as_tensors_pictures_and_files_get_the_answer_for_their_frames(name, tmp_path):
    model, processor = build(name)
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for frame in make_frames(8, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    frames, metadata = load_video(str(tmp_path / "video.mp4"), num_frames=4, backend="pyav")
    forms = [frames, torch.from_numpy(frames).permute(0, 3, 1, 2), [Image.fromarray(frame) for frame in frames]]
    text, answers = make_text(processor, [frames, "What happens?"]), []
    with stgridpool.compress(model, "visionzip", retention=0.3):
        for video in forms:
            told = {"video_metadata": [copy.deepcopy(metadata)], "do_sample_frames": False, "return_tensors": "pt"}
            answers.append(model.generate(**processor(text=[text], videos=[video], **told), **GREEDY))
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def test_text_alone_and_images_go_to_the_model_unchanged():
    model, processor = build("qwen2_5_vl")
    for prompt in (["Say something."], [make_frames(1)[0], "What is it?"]):
        inputs = make_inputs(processor, prompt)
        expected = model.generate(**inputs, **GREEDY)
        with stgridpool.compress(model, "stride") as block:
            assert torch.equal(model.generate(**inputs, **GREEDY), expected)
            assert block.last is None


def test_a_compressor_assigned_to_a_native_model_is_refused():
    model, inputs = load_with("llava_onevision", PROMPT)
    model.compressor = "nsp"  # as with models of llava; here nothing would read it
    with pytest.raises(ValueError, match=r"ignores the compressor that was assigned to it: `del model\.compressor`"):
        compress_inputs(model, inputs, "stride", retention=0.5)
    del model.compressor
    assert compress_inputs(model, inputs, "stride", retention=0.5).num_removed > 0
