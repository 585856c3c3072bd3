"""Native models through `VideoModel`: encoded once, any number of prompts, and a prefix that questions share."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

import stgridpool
from native_models.families import BUILDERS, build
from native_models.prompts import make_frames, make_inputs
from stgridpool import Compressor, Plan, Step, build_compressor
from stgridpool import model as video_model
from stgridpool.adapters.families import FAMILIES, adapter_for
from stgridpool.adapters.frame_rules import OwnRule, Source
from stgridpool.adapters.native_model import NativeVideoModel
from stgridpool.adapters.native_recipe import NativeRecipe
from stgridpool.decoder.session import POSITIONS
from stgridpool.finite import LogitsWatch
from stgridpool.model import ClipTimes
from stgridpool.session import open_session
from stgridpool.timing import StageTimer

NAMES = [name for family in FAMILIES for name in family.model_types if name in BUILDERS]
LINEAR = [name for name in NAMES if name.startswith("qwen3_5")]
GREEDY = {"max_new_tokens": 3, "do_sample": False}
FRAMES, INDICES, SOURCE = make_frames(8), list(range(0, 96, 12)), Source(96, 24.0)  # as `make_inputs` says it
QUESTIONS = ["What happens?", "Why is it so dark in there?"]
pytestmark = pytest.mark.adapters


class Late(Compressor):
    """Every third token, chosen before the first layer after the DeepStack levels of the tiny Qwen3-VL."""

    needs_maps = False

    def plan(self, tokens, evidence):
        return Plan.keep(torch.arange(0, len(tokens), 3), len(tokens))

    def steps(self):
        return (Step(self, 2, "survive"),)


def make_model(name, compressor="none", positions="reference"):
    model, processor = build(name)
    adapter = adapter_for(model)
    rule = OwnRule(processor.video_processor, adapter.sampling)
    recipe = NativeRecipe(processor, rule, torch.float32, adapter.lists_per_prompt)
    native = NativeVideoModel(model, recipe, positions=positions)
    native.compressor = compressor
    return native


@torch.inference_mode()
def make_prompts(model, questions, frames=FRAMES, answer=None):
    timer = StageTimer("cpu")
    features, evidence = model.encode(model.recipe.inputs(frames, INDICES, SOURCE), (), timer)
    video = model.compress(features, evidence, timer)
    clip = ClipTimes(tuple(index / 24 for index in INDICES), 4.0)
    return [model.prompt(question, [video], [clip], answer) for question in questions]


def whole(model, prompt, **options):
    return video_model.generate(
        model, prompt, LogitsWatch(model.language_model), output_logits=True, return_dict_in_generate=True, **options
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_compression_answers_are_those_of_the_unmodified_model(name):
    model = make_model(name, positions="hf")
    (prompt,) = make_prompts(model, QUESTIONS[:1])
    inputs = make_inputs(model.recipe.processor, [FRAMES, QUESTIONS[0]])
    expected = model.language_model.generate(**inputs, **GREEDY)[0, inputs["input_ids"].shape[1] :]
    assert whole(model, prompt, **GREEDY).sequences[0].tolist() == expected.tolist()
    ((_, video),) = prompt.videos
    assert (video.num_tokens, video.num_newlines) == model.own_counts(video)
    assert len(prompt) == inputs["input_ids"].shape[1]


@pytest.mark.parametrize("compressor", ["none", "vidcom2", Late()])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in LINEAR])
def test_questions_that_share_a_prefix_get_the_logits_of_whole_prompts(name, compressor):
    if isinstance(compressor, Late) and name == "molmo2":
        pytest.skip("no compressor can act inside molmo2")
    model = make_model(name, compressor)
    prompts = make_prompts(model, QUESTIONS)
    session = open_session(model, prompts[0])
    suffixes = [prompt.pieces[2] for prompt in prompts]
    positions = [prompt.inputs[POSITIONS] for prompt in prompts]
    output = session.generate(suffixes, positions, output_logits=True, return_dict_in_generate=True, **GREEDY)
    for row, prompt in enumerate(prompts):
        expected = torch.stack(whole(model, prompt, **GREEDY).logits, 1)[0]
        found = torch.stack(output.logits, 1)[row]
        assert (found - expected).abs().max() < 5e-6 * expected.abs().max()
        logits = session.logits(suffixes[row], positions[row])
        expected = video_model.last_logits(model, prompt, len(logits))
        assert (logits - expected).abs().max() < 5e-6 * expected.abs().max()
    if compressor == "vidcom2":  # beams reorder whole rows of the cache, whatever the prefix holds
        beams = session.generate(suffixes[:1], positions[:1], num_beams=2, **GREEDY)
        assert beams.tolist() == whole(model, prompts[0], num_beams=2, **GREEDY).sequences.tolist()


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_a_method_inside_that_looks_at_the_question_answers_as_the_block_does(name):
    model = make_model(name, build_compressor("fastv", layer=2))
    prompts = make_prompts(model, QUESTIONS)
    with pytest.raises(ValueError, match="looks at the question, so questions cannot share a prefix"):
        open_session(model, prompts[0])
    for question, prompt in zip(QUESTIONS, prompts, strict=True):
        inputs = make_inputs(model.recipe.processor, [FRAMES, question])
        with stgridpool.compress(model.language_model, "fastv", layer=2):
            expected = model.language_model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(whole(model, prompt, **GREEDY).sequences, expected)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_attention_shares_no_prefix(name):
    model = make_model(name)
    assert not model.shares_prefix
    (prompt,) = make_prompts(model, QUESTIONS[:1])
    with pytest.raises(ValueError, match=r"every layer must keep all positions, got layers of .*Linear"):
        open_session(model, prompt)
    assert make_model("qwen3_vl").shares_prefix


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_an_answer_in_a_prompt_has_the_loss_of_the_unmodified_model(name):
    model = make_model(name, positions="hf")
    (prompt,) = make_prompts(model, QUESTIONS[:1], answer="a red thing")
    tokenizer = model.tokenizer
    assert tokenizer.decode(prompt.ids[-prompt.num_answer :]) == "a red thing<|im_end|>\n"
    assert tokenizer.decode(prompt.ids[-prompt.num_closing :]) == "<|im_end|>\n"
    inputs = make_inputs(model.recipe.processor, [FRAMES, QUESTIONS[0]])
    ids = torch.cat([inputs["input_ids"][0], prompt.ids[-prompt.num_answer :]])[None]
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inputs:
        marks = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = F.pad(marks, (0, ids.shape[1] - marks.shape[1]))
    with torch.inference_mode():
        expected = model.language_model(**inputs).logits[0, -prompt.num_answer - 1 :]
        logits = video_model.last_logits(model, prompt, prompt.num_answer + 1)
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


def test_the_decoder_reads_as_many_tokens_as_were_planned():
    model = make_model("qwen2_5_vl", "vidcom2")
    (prompt,) = make_prompts(model, QUESTIONS[:1])
    ((start, video),) = prompt.videos
    tokens, newlines = model.own_counts(video)
    assert (tokens, newlines) == (4 * 3 * 5, 0)  # 8 frames of 24x40, a token is 8x8 pixels of two frames
    assert video.num_tokens == math.ceil(tokens * 0.25)
    assert start == len(prompt.pieces[0])
    assert torch.equal(prompt.embeds[prompt.spans()[0].tokens], video.compressed.tokens.features)


def test_methods_that_change_frames_are_refused():
    with pytest.raises(ValueError, match="acts on frames or in the vision tower, which only"):
        make_model("qwen2_5_vl", "image_grid")


def test_images_are_refused():
    model = make_model("qwen2_5_vl")
    with pytest.raises(TypeError, match="about videos here, not about 1 images"):
        model.encode_images([None], StageTimer("cpu"))


def test_a_checkpoint_without_chat_template_is_refused():
    _, processor = build("qwen2_5_vl")
    other = type(processor)(processor.image_processor, processor.tokenizer, processor.video_processor)
    other.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        NativeRecipe(other, OwnRule(processor.video_processor, {}), torch.float32)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ foo(", r"TemplateSyntaxError: .*; copy chat_template\.jinja from"),
        ("{{ messages.foo.bar }}", "UndefinedError: "),
        ("{% for _ in range(999999999) %}{% endfor %}", "OverflowError: "),
    ],
)
def test_a_damaged_chat_template_is_one_line(template, message):
    processor = copy.copy(build("qwen2_5_vl")[1])
    processor.chat_template = template
    recipe = NativeRecipe(processor, OwnRule(processor.video_processor, {}), torch.float32)
    with pytest.raises(ValueError, match=f"^the checkpoint's chat template fails with {message}"):
        recipe.text([{"role": "user", "content": [{"type": "video"}]}])
