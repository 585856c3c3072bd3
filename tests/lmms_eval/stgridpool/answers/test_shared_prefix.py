"""Sharing the prefix of a video changes no answer."""

import json
import random
from weakref import WeakSet

import pytest
import torch
from lmms_eval.api.instance import unwrap_generation_output

from fitting_options import FITTING
from lmms_eval_stgridpool.answers.shared_prefix import SharedPrefix
from lmms_eval_stgridpool.sweep import SweptModel
from lmms_eval_stgridpool.videos.encoding import Media
from stgridpool import STGridPool, build_compressor
from stgridpool.contract.cases import methods_to_test
from stgridpool.decoder.session import VideoSession

QUESTIONS = [f"Question {index}: what moves {'very ' * (index % 5)}fast?" for index in range(8)]


def texts(results):
    return [unwrap_generation_output(result)[0] for result in results]


def both(make_model, **arguments):
    return make_model(**arguments), make_model(share_prefix=False, **arguments)


def counting(model):
    """Positions that go through the first decoder layer, call by call."""
    lengths = []
    layer = model.model.language_model.model.layers[0]
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append((args[0] if args else kwargs["hidden_states"]).shape[1]),
        with_kwargs=True,
    )
    return lengths, handle


@pytest.mark.parametrize(
    ("position", "time_instruction"), [("grid", False), ("frame", True), ("one_token", False), ("no_token", True)]
)
def test_questions_in_any_order(make_model, ask, position, time_instruction):
    arguments = {"mm_newline_position": position, "add_time_instruction": time_instruction, "questions_per_batch": 3}
    shared, plain = both(make_model, **arguments)
    documents = [{"visuals": ["v2.mp4"], "context": text, "gen_kwargs": {"max_new_tokens": 4}} for text in QUESTIONS]
    expected = texts(ask(plain, "generate_until", documents))
    assert texts(ask(shared, "generate_until", documents)) == expected
    order = random.Random(5).sample(range(len(QUESTIONS)), len(QUESTIONS))
    shuffled = texts(ask(shared, "generate_until", [documents[index] for index in order]))
    assert shuffled == [expected[index] for index in order]
    assert len(set(expected)) > 1


@pytest.fixture(scope="module")
def swept(checkpoint, clips, tmp_path_factory):
    """Methods of the contract tests by name, their models with shared prefixes, and without; all share weights."""
    listed = tmp_path_factory.mktemp("listed") / "oracle_frames.json"
    listed.write_text('{"v2.mp4": [0, 2]}')
    options = FITTING | {"oracle_frames": {"file": str(listed)}}
    compressors = [_built(name, options) for name in methods_to_test()]
    arguments = {"pretrained": str(checkpoint), "max_frames_num": 8, "device": "cpu", "decode_threads": 1}
    models = (SweptModel(**arguments, share_prefix=shares).for_each(compressors) for shares in (True, False))
    return {name: found for name, *found in zip(methods_to_test(), compressors, *models, strict=True)}


def _built(name, options):
    """Build a method of the contract tests, ``name``, ``name[preset]`` or ``name+name``, with options that fit."""
    name, _, preset = name.removesuffix("]").partition("[")
    if "+" in name:
        return build_compressor(name, **{part: options[part] for part in name.split("+") if part in options})
    return build_compressor(name, **options.get(name, {}) | ({"preset": preset} if preset else {}))


@pytest.mark.parametrize("compressor", methods_to_test())
def test_every_compressor(swept, ask, compressor):
    """A prefix is shared unless the compressor looks at the question; answers are those of the whole prompts."""
    method, shared, plain = swept[compressor]
    assert shared._setup["shares_prefix"] is (not method.query_aware)
    assert plain._setup["shares_prefix"] is False
    documents = [{"visuals": ["v2.mp4"], "context": text, "continuation": "B"} for text in QUESTIONS[:2]]
    losses, expected = ([loss for loss, _ in texts(ask(one, "loglikelihood", documents))] for one in (shared, plain))
    assert losses == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


def test_a_repetition_penalty_and_beams(make_model, ask, golden):
    arguments = {"pretrained": str(golden / "llava" / "ckpt-ov"), "compressor": "bilinear"}
    shared, plain = both(make_model, **arguments)
    assert shared.model.language_model.generation_config.repetition_penalty > 1
    settings = [{"max_new_tokens": 12}, {"max_new_tokens": 8, "num_beams": 2}]
    documents = [
        {"visuals": ["v1.mp4"], "context": text, "gen_kwargs": one} for text in QUESTIONS[:4] for one in settings
    ]
    assert texts(ask(shared, "generate_until", documents)) == texts(ask(plain, "generate_until", documents))


def test_losses(make_model, ask):
    shared, plain = both(make_model)
    documents = [
        {"visuals": ["v1.mp4"], "context": text, "continuation": answer}
        for text in QUESTIONS[:3]
        for answer in ("A. kite", "B")
    ]
    pairs = zip(
        texts(ask(shared, "loglikelihood", documents)), texts(ask(plain, "loglikelihood", documents)), strict=True
    )
    for (loss, greedy), (expected, expected_greedy) in pairs:
        assert loss == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy


def test_logits_equal_those_of_the_whole_prompt(make_model, clips):
    model = make_model()
    from stgridpool.timing import StageTimer

    encoder, timer = model.encoder, StageTimer("cpu")
    with torch.inference_mode():
        media = encoder.compress(encoder.encode([str(clips / "v2.mp4")], timer), "", timer)
        for question in QUESTIONS[:4]:
            prompt = model.model.prompt(question, media.visuals, media.clips)
            opened = model._answerer.shared.open(prompt, media)
            language_model = model.model.language_model
            whole = language_model(prompt.ids[None], images=list(media.visuals), modalities=["video"]).logits[0]
            torch.testing.assert_close(
                opened.session.logits(opened.suffix), whole[-len(opened.suffix) :], atol=1e-4, rtol=0
            )


def test_the_video_is_prefilled_once(make_model, ask):
    model = make_model()
    lengths, handle = counting(model)
    documents = [
        {"visuals": [name], "context": text, "gen_kwargs": {"max_new_tokens": 1}}
        for name in ("v0.mp4", "v1.mp4")
        for text in QUESTIONS[:3]
    ]
    try:
        ask(model, "generate_until", documents)
    finally:
        handle.remove()
    video = {"v0.mp4": 5 * 9 + 15, "v1.mp4": 7 * 9 + 21}  # 3x3 tokens and 3 newlines a frame
    opening = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    system = len(model.model.tokenizer(opening).input_ids)
    assert [lengths[0], lengths[2]] == [system + video["v0.mp4"], system + video["v1.mp4"]]
    assert max(lengths[1], lengths[3]) < 100  # the three questions of a video, as one batch
    assert len(lengths) == 4


@pytest.mark.parametrize("penalty", [False, True])
def test_a_batch_respects_the_settings_of_each_question(make_model, ask, golden, penalty):
    arguments = {"pretrained": str(golden / "llava" / "ckpt-ov"), "compressor": "bilinear"} if penalty else {}
    single, batch = make_model(questions_per_batch=1, **arguments), make_model(questions_per_batch=20, **arguments)
    free = {"visuals": ["v2.mp4"], "context": QUESTIONS[7], "gen_kwargs": {"max_new_tokens": 9}}
    (text,) = texts(ask(single, "generate_until", [free]))
    settings = [
        {"max_new_tokens": 1},
        {"max_new_tokens": 9},
        {"max_new_tokens": 9, "until": text[2:4]},
        {"max_new_tokens": 4, "temperature": 0},
        {"max_new_tokens": 12, "until": ["zzz", "\n\n"]},
    ]
    documents = [{**free, "context": QUESTIONS[index], "gen_kwargs": one} for index in (7, 3, 7) for one in settings]
    one_by_one, together = ask(single, "generate_until", documents), ask(batch, "generate_until", documents)
    assert texts(together) == texts(one_by_one)
    counts = [[unwrap_generation_output(one)[1].output_tokens for one in results] for results in (together, one_by_one)]
    assert counts[0] == counts[1]
    assert len(set(counts[0])) > 2


def test_sampled_answers_stay_alone(make_model, ask):
    model = make_model()
    sampled = {"max_new_tokens": 3, "do_sample": True, "temperature": 0.8}
    documents = [
        {"visuals": ["v0.mp4"], "context": text, "gen_kwargs": settings}
        for text, settings in zip(QUESTIONS, [sampled, {"max_new_tokens": 3}, sampled], strict=False)
    ]
    greedy = texts(ask(make_model(questions_per_batch=1), "generate_until", documents))[1]
    assert texts(ask(model, "generate_until", documents))[1] == greedy


def test_prompts_with_other_text_before_the_video_take_turns_in_memory(make_model, ask, monkeypatch):
    open_sessions, most = WeakSet(), []
    plain_init = VideoSession.__init__

    def init(self, *args, **kwargs):
        open_sessions.add(self)
        most.append(len(open_sessions))
        plain_init(self, *args, **kwargs)

    monkeypatch.setattr(VideoSession, "__init__", init)
    options = {"layer": 1, "spatial_threshold": 0.5, "temporal_threshold": 0.3}  # at layer 1 the text before counts
    compressor = {"compressor": "sttm", "compressor_args": options}
    model, plain = make_model(**compressor), make_model(share_prefix=False, **compressor)
    contexts = ["<image>\nWho?", "A long text before <image>\nWho?", "<image>\nWhere?", "A long text before <image> ?"]
    documents = [{"visuals": ["v0.mp4"], "context": text, "gen_kwargs": {"max_new_tokens": 4}} for text in contexts]
    found, expected = ask(model, "generate_until", documents), ask(plain, "generate_until", documents)
    assert texts(found) == texts(expected)
    assert most == [1, 1]  # each prefix once, and one at a time
    facts = [[unwrap_generation_output(one)[1] for one in results] for results in (found, expected)]
    assert [one.answered_together for one in facts[0]] == [2, 2, 2, 2]
    assert [one.kept_tokens for one in facts[0]] == [one.kept_tokens for one in facts[1]]


def test_other_prompts_share_nothing(make_model, ask):
    shared, plain = both(make_model)
    documents = [
        {"context": "No video?"},
        {"visuals": ["v0.mp4", "v1.mp4"]},
        {"visuals": ["v0.mp4"], "context": "before <image> after"},
    ]
    assert texts(ask(shared, "generate_until", documents)) == texts(ask(plain, "generate_until", documents))
    assert SharedPrefix(shared.model, is_on=True).open(shared.model.prompt("Who?", [], []), Media()) is None


def test_a_compressor_that_looks_at_the_question_switches_it_off(make_model, monkeypatch):
    assert make_model()._setup["shares_prefix"] is True
    monkeypatch.setattr(STGridPool, "query_aware", True)
    model = make_model()
    assert model._setup["shares_prefix"] is False
    assert json.dumps(model._setup)
