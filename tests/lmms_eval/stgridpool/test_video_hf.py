"""The lmms-eval model `video_hf` with tiny native models, compared with the stock models of lmms-eval."""

import hashlib

import pytest
import torch
from lmms_eval.api.instance import Instance, unwrap_generation_output
from PIL import Image
from transformers.video_utils import VideoMetadata

from llava.frame_list import list_frames
from llava.video import read_video
from lmms_eval_stgridpool.kept.identity import frames_digest
from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from lmms_eval_stgridpool.sweep import SweptNative
from lmms_eval_stgridpool.video_hf import VideoHf
from stgridpool import build_compressor
from stgridpool.adapters.frame_rules import Source

PIXELS = {"min_pixels": 32 * 32, "max_pixels": 64 * 64}
STOCK_SYSTEM = "You are a helpful assistant."
QUESTIONS = ["What is shown?", "Why is it so blue?"]
GENERATION = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def make_native(folder_of, make_model):
    """Function that builds `video_hf` on the CPU."""
    defaults = {"torch_dtype": "float32", "compressor": "none", "max_frames_num": None}

    def make(name, **arguments):
        return make_model(VideoHf, **{"pretrained": str(folder_of(name)), **defaults, **arguments})

    return make


def ids_of(model, clip, ask):
    """The ids that the model generates for both questions about a clip."""
    tokenizer, kept = model.model.tokenizer, []
    plain = tokenizer.decode
    tokenizer.decode = lambda ids, **options: kept.append(torch.as_tensor(ids).tolist()) or plain(ids, **options)
    try:
        ask(
            model,
            "generate_until",
            [{"visuals": [clip], "context": one, "gen_kwargs": GENERATION} for one in QUESTIONS],
        )
    finally:
        del tokenizer.decode
    return [ids for ids in kept if len(ids) == GENERATION["max_new_tokens"]]


def stock_ids_of(stock, path):
    """The ids that a chat model of lmms-eval generates for the same requests."""
    kept, plain = [], stock._model.generate

    def generate(**options):
        output = plain(**options)
        kept.append(output[0, -GENERATION["max_new_tokens"] :].tolist())
        return output

    def messages(document):
        content = [{"type": "video", "url": str(path)}, {"type": "text", "text": document["context"]}]
        return [{"role": "user", "content": content}]

    stock.task_dict["task"] = {"test": [{"context": one} for one in QUESTIONS]}
    requests = []
    for number, question in enumerate(QUESTIONS):
        arguments = (question, messages, dict(GENERATION), number, "task", "test")
        metadata = {"task": "task", "doc_id": number, "repeats": 1}
        requests.append(Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata))
    stock._model.generate = generate
    try:
        stock.generate_until(requests)
    finally:
        del stock._model.generate
    return kept


@pytest.mark.parametrize(("fps", "penalty"), [(None, 1.0), (1, 1.5)])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_generated_ids_are_those_of_lmms_evals_model(name, fps, penalty, make_native, folder_of, ask, clips):
    if name == "qwen2_5_vl":
        from lmms_eval.models.chat.qwen2_5_vl import Qwen2_5_VL as Stock
    else:
        from lmms_eval.models.chat.qwen3_vl import Qwen3_VL as Stock
    system = {} if name == "qwen2_5_vl" else {"system_prompt": STOCK_SYSTEM}  # that model prepends one
    options = {"sampling": "lmms_eval", "positions": "hf", "video_decode_backend": "decord", "max_frames_num": 8}
    model = make_native(name, fps=fps, **options, **system, **PIXELS)
    stock = Stock(str(folder_of(name)), device="cpu", device_map="cpu", max_num_frames=8, fps=fps, **PIXELS)
    stock._model = model.model.language_model  # it loads bfloat16
    stock._model.generation_config.repetition_penalty = penalty  # the released Qwen2.5-VL has one
    expected = stock_ids_of(stock, clips / "v1.mp4")
    assert len(expected) == 2
    found = ids_of(model, "v1.mp4", ask)
    assert sorted(found) == sorted(expected)  # that model sorts questions by their text


def test_generated_ids_are_those_of_the_call_that_llava_hf_makes(make_native, ask, clips):
    """`llava_hf` itself fails: it passes an empty list of images, and needs torchcodec to read a path."""
    model = make_native("llava_onevision", sampling="lmms_eval", max_frames_num=40)
    clip = read_video(clips / "v0.mp4", indices=list(range(list_frames(clips / "v0.mp4").num_frames)))
    assert len(clip.frames) == 40  # 5 s of 8 frames
    processor, expected = model.model.recipe.processor, []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(videos=clip.frames, text=text, return_tensors="pt")
        output = model.model.language_model.generate(**inputs, do_sample=False, **GENERATION)
        expected.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    assert ids_of(model, "v0.mp4", ask) == expected


def test_the_times_in_a_prompt_are_those_of_the_frames(make_native, clips):
    """Two frames per second of 8: every fourth; a token shows two frames, and its time is the middle of theirs."""
    model = make_native("qwen3_vl")
    loaded = model.encoder.loader.get(clips / "v0.mp4")
    assert loaded.frames["frames"].tolist() == [0, 4, 9, 13, 17, 22, 26, 30, 35, 39]  # 10, spread over 40
    text = model.model.tokenizer.decode(loaded.frames["input_ids"][0])
    assert [f"<{time} seconds>" in text for time in (0.2, 1.4, 2.4, 3.5, 4.6)] == [True] * 5
    assert loaded.times == pytest.approx([index / 8 for index in loaded.frames["frames"].tolist()])


@pytest.mark.parametrize(
    ("compressor", "options", "definition", "retention", "shares"),
    [
        ("vidcom2", {}, "entering_llm", 0.25, True),
        ("sttm", {"layer": 2, "retention": 0.5}, "last_layer", 0.5, True),
        ("fastv", {"layer": 2, "retention": 0.5}, "last_layer", 0.5, False),
    ],
)
def test_questions_of_a_batch_get_the_answers_of_single_ones(
    compressor, options, definition, retention, shares, make_native, ask
):
    documents = [
        {"visuals": [name], "context": one, "gen_kwargs": GENERATION}
        for name in ("v0.mp4", "v1.mp4")
        for one in QUESTIONS
    ]
    answers = []
    for sharing in ({}, {"share_prefix": False}):
        model = make_native("qwen2_5_vl", compressor=compressor, compressor_args=options, **sharing)
        assert model._setup["shares_prefix"] is (shares and not sharing)
        results = ask(model, "generate_until", documents)
        answers.append([unwrap_generation_output(result)[0] for result in results])
        facts = unwrap_generation_output(results[0])[1].to_dict()
        assert facts["retention"][definition] == pytest.approx(retention, abs=0.03)
        assert facts["failure"] is None
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 1


def test_features_are_kept_and_answers_resumed(make_native, ask, tmp_path):
    documents = [{"visuals": ["v0.mp4"], "gen_kwargs": GENERATION}]
    cached = {"feature_cache": str(tmp_path / "features")}
    first = ask(make_native("qwen3_vl", **cached), "generate_until", documents)
    again = make_native("qwen3_vl", resume_dir=str(tmp_path / "answers"), **cached)
    second = ask(again, "generate_until", documents)
    assert again._sums.totals["feature_cache_hits"] == 1
    resumed = make_native("qwen3_vl", resume_dir=str(tmp_path / "answers"))
    third = ask(resumed, "generate_until", documents)
    assert (resumed._sums.requests, resumed._sums.resumed_requests) == (0, 1)
    texts = {unwrap_generation_output(result[0])[0] for result in (first, second, third)}
    assert len(texts) == 1
    other = make_native("qwen3_vl", resume_dir=str(tmp_path / "answers"), fps=1)
    ask(other, "generate_until", documents)
    assert other._sums.resumed_requests == 0


def test_reused_frames_are_recorded(make_native, ask, tmp_path):
    """Of slides that are all equal five are shown; two make a patch, and the last one is filled up with itself."""
    for index in range(12):
        Image.new("RGB", (40, 30), (99, 0, 0)).save(tmp_path / f"{index}.png")
    cached, found = {"feature_cache": str(tmp_path / "features")}, []
    for arguments in (cached, cached, {"reuse_frames": False}):
        model = make_native("qwen2_vl", max_frames_num=5, **arguments)
        (result,) = ask(model, "generate_until", [{"visuals": [str(tmp_path)], "gen_kwargs": GENERATION}])
        totals, text = model._sums.totals, unwrap_generation_output(result)[0]
        found.append((text, totals["frames"], totals["reused_frames"], model._setup["reuse_frames"]))
    assert [facts for _, *facts in found] == [[5, 3, True], [5, 0, True], [5, 0, False]]  # a cache saves all of them
    assert len({text for text, *_ in found}) == 1


def test_options_and_text_alone_are_answered(make_native, ask):
    model = make_native("llava_onevision", answer_without_visuals=True)
    documents = [{"visuals": ["v0.mp4"], "continuation": text} for text in ("red", "a green thing")]
    losses = [unwrap_generation_output(one)[0] for one in ask(model, "loglikelihood", documents)]
    assert all(loss > 0 for loss, _ in losses)
    (result,) = ask(model, "generate_until", [{"visuals": [], "gen_kwargs": GENERATION}])
    assert unwrap_generation_output(result)[1].failure is None


def test_linear_attention_is_answered_without_a_shared_prefix(make_native, ask):
    model = make_native("qwen3_5")
    assert model._setup["shares_prefix"] is False
    (result,) = ask(model, "generate_until", [{"visuals": ["v0.mp4"], "gen_kwargs": GENERATION}])
    assert unwrap_generation_output(result)[1].failure is None


@pytest.mark.parametrize(
    ("visual", "message"),
    [
        ({"url": "v0.mp4", "video_start": 1, "video_end": 2}, "got dict"),
        (Image.new("RGB", (40, 50)), "about videos here, not about 1 images"),
    ],
)
def test_parts_of_videos_and_images_end_the_run(visual, message, make_native, ask, logged):
    with pytest.raises(SystemExit):
        ask(make_native("qwen2_5_vl"), "generate_until", [{"visuals": [visual]}])
    assert any(message in line for line in logged)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"conv_template": "qwen_1_5"},
            "video_hf has no argument 'conv_template': prompts follow the checkpoint's own",
        ),
        ({"vision_batch_size": 4}, "video_hf has no argument 'vision_batch_size': the vision part"),
        ({"sampling": "index"}, "sampling cannot be 'index'"),
        ({"min_pixels": 9, "max_pixels": 8}, "min_pixels must be at most max_pixels, got 9 and 8"),
        ({"positions": "none"}, "positions cannot be 'none'"),
        ({"max_frame": 3}, "did you mean 'max_frames_num'"),
    ],
)
def test_arguments_of_other_models_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NativeArguments.parse({"pretrained": "x", **arguments})


def test_llava_video_refuses_arguments_of_video_hf():
    with pytest.raises(ValueError, match="llava_video has no argument 'system_prompt': conv_template has one"):
        LlavaVideo(pretrained="x", system_prompt="Be brief.")


def test_wrong_checkpoints_are_refused(make_native, checkpoint, folder_of, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "google/siglip"}')
    with pytest.raises(ValueError, match="is in LLaVA-NeXT's format: use --model llava_video, or convert it"):
        make_native("qwen3_vl", pretrained=str(tmp_path))
    with pytest.raises(ValueError, match="is in LLaVA-NeXT's format: use --model llava_video, or convert it"):
        make_native("qwen3_vl", pretrained=str(checkpoint))
    with pytest.raises(ValueError, match=r"sampling=lmms_eval supports .*, not internvl"):
        make_native("internvl", sampling="lmms_eval")
    with pytest.raises(ValueError, match="resizes to a fixed size"):
        make_native("llava_onevision", max_pixels=100)


def test_metadata_says_what_was_read(make_native, clips):
    """The record that stands in for the video processor holds the file's rate, length and size."""
    model = make_native("video_llama_3", max_frames_num=3)
    loaded = model.encoder.loader.get(clips / "v1.mp4")
    assert loaded.frames["source"].tolist() == [56, 8, 48, 64]  # frames, rate, height, width
    assert loaded.frames["frames"].tolist() == [0, 28, 55]
    assert VideoMetadata(total_num_frames=56, fps=8, duration=7).duration == loaded.duration


def test_a_native_run_records_the_digests_of_its_checkpoint_and_of_its_frames(make_native, folder_of, ask, clips):
    model = make_native("qwen2_5_vl", max_frames_num=4)
    (result,) = ask(model, "generate_until", [{"visuals": ["v0.mp4"], "gen_kwargs": GENERATION}])
    clip = clips / "v0.mp4"
    listed = list_frames(clip)
    rule = model.model.recipe.rule
    indices = rule.choose(Source(listed.num_frames, listed.frame_rate))
    assert unwrap_generation_output(result)[1].frames_sha256 == frames_digest([(clip, indices)])
    model.clean()
    files = model.run_record["fingerprints"]["pretrained"]
    names = [(kind, name) for kind in files for name in files[kind]]
    assert {("weights", "model.safetensors"), ("settings", "tokenizer.json"), ("settings", "config.json")} <= set(names)
    for kind, name in names:
        assert files[kind][name] == hashlib.sha256((folder_of("qwen2_5_vl") / name).read_bytes()).hexdigest()


def test_a_sweep_answers_as_separate_runs(folder_of, make_native, ask, clips):
    """Two methods share what was encoded, after a warm-up whose features lack their evidence."""
    documents = [{"visuals": [clip], "gen_kwargs": GENERATION} for clip in ("v0.mp4", "v1.mp4", "v0.mp4")]
    given = {"device": "cpu", "torch_dtype": "float32", "compressor": "none", "max_frames_num": 4, "decode_threads": 1}
    loaded = SweptNative(pretrained=str(folder_of("qwen2_5_vl")), **given)
    loaded.warm_up(clips / "v0.mp4")
    reference, frames = loaded.measured_against(lambda: [clips / "broken.mp4", clips / "v0.mp4"])
    with pytest.raises(ValueError, match=r"measured against a video, and none can be read: .*broken\.mp4"):
        loaded.measured_against(lambda: [clips / "broken.mp4"])
    assert (frames, reference.num_layers) == (2, loaded.model.language_model.config.get_text_config().num_hidden_layers)
    assert reference.own_pooling == loaded.model.own_pooling()
    options = [("none", {}), ("random", {"retention": 0.5}), ("fastv", {"layer": 1, "retention": 0.5})]
    swept = loaded.for_each([build_compressor(name, **more) for name, more in options])
    for model, (name, more) in zip(swept, options, strict=True):
        alone = make_native("qwen2_5_vl", **given | {"compressor": name, "compressor_args": more})
        found, expected = (ask(one, "generate_until", documents) for one in (model, alone))
        assert [one.text for one in found] == [one.text for one in expected]
        assert [one.token_counts.kept_tokens for one in found] == [one.token_counts.kept_tokens for one in expected]
