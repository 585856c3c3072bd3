import copy
import hashlib
import math
from pathlib import Path

import pytest
import torch
from lmms_eval.api.instance import unwrap_generation_output
from loguru import logger
from PIL import Image
from torch.nn import functional as F

from llava.mm_utils import tokenizer_image_token
from llava.video import read_video
from llava.video_process import ReadingProcessError, VideoReader
from lmms_eval_stgridpool.kept.identity import answer_key, frames_digest
from lmms_eval_stgridpool.run.cause import CAUSE
from stgridpool import build_compressor, kernels

PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


def pixels_of(model, path):
    frames = read_video(path, 8).frames
    return model.model.language_model.get_vision_tower().image_processor.preprocess(frames, return_tensors="pt")[
        "pixel_values"
    ]


def ids_of(model, text):
    return tokenizer_image_token(text, model.model.tokenizer, return_tensors="pt")[None]


def texts(results):
    return [unwrap_generation_output(result)[0] for result in results]


def facts(results):
    return [unwrap_generation_output(result)[1].to_dict() for result in results]


def test_it_is_the_compressor_that_was_asked_for(model, make_model):
    assert model.compressor == model.model.compressor == build_compressor("st_gridpool")
    other = make_model(compressor="bilinear", mm_newline_position="no_token")
    assert other.compressor == build_compressor("bilinear")
    assert other.model.facts()["mm_newline_position"] == "no_token"
    with pytest.raises(AttributeError, match="compressor"):
        other.compressor = build_compressor("nsp")  # the record and the journal name the first
    assert (model.rank, model.world_size, model.device, model.batch_size) == (0, 1, torch.device("cpu"), 1)


def test_triton_kernels_are_off_unless_asked_for(make_model, monkeypatch):
    monkeypatch.setitem(kernels._STATE, "on", True)  # by someone before
    assert make_model()._setup["triton_kernels"] is False
    assert not kernels._STATE["on"]
    with pytest.raises(ValueError, match="Triton kernels need an NVIDIA GPU"):
        make_model(triton_kernels=True)


def test_answers_are_those_of_the_model_and_come_in_the_order_asked(model, ask, clips):
    names = ["v0.mp4", "v1.mp4", "v0.mp4", "v2.mp4", "v1.mp4"]
    questions = [f"Question {index}?" for index in range(5)]
    documents = [
        {"visuals": [name], "context": text, "gen_kwargs": {"max_new_tokens": 5}}
        for name, text in zip(names, questions, strict=True)
    ]
    before = copy.deepcopy(documents)
    results = ask(model, "generate_until", documents)
    assert documents == before
    for name, question, text in zip(names, questions, texts(results), strict=True):
        ids = ids_of(model, PROMPT.format(f"<image>\n{question}"))
        expected = model.model.language_model.generate(
            ids, images=[pixels_of(model, clips / name)], modalities=["video"], do_sample=False, max_new_tokens=5
        )
        assert text == model.model.tokenizer.decode(expected[0], skip_special_tokens=True).strip()


def test_a_video_is_read_and_encoded_once_for_its_questions(model, ask, monkeypatch):
    read = []
    plain = VideoReader.read
    monkeypatch.setattr(
        VideoReader, "read", lambda self, path, **options: read.append(path.name) or plain(self, path, **options)
    )
    names = ["v0.mp4", "v1.mp4", "v0.mp4", "v1.mp4", "v0.mp4"]
    results = ask(model, "generate_until", [{"visuals": [name]} for name in names])
    assert sorted(read) == ["v0.mp4", "v1.mp4"]  # by several threads
    assert all("decode" in fact["seconds"] for fact in facts(results))  # divided among the questions of a batch


def test_a_video_counts_once_if_each_question_compresses_it(make_model, ask, tmp_path):
    """Four slides, of which two repeat; two of three questions find the video encoded."""
    slides, cache = tmp_path / "slides", tmp_path / "cache"
    slides.mkdir()
    cache.mkdir()
    for index in range(4):
        Image.new("RGB", (20, 10), (90 * (index // 2), 0, 0)).save(slides / f"{index}.png")
    model = make_model(compressor="cdpruner", compressor_args={"tokens_per_frame": 3}, feature_cache=str(cache))
    documents = [{"visuals": [str(slides)], "context": text} for text in ("What?", "Who?", "Where is it?")]
    ask(model, "generate_until", documents)
    totals = model._sums.totals
    assert (model._sums.videos, totals["frames"], totals["visual_tokens"], totals["reused_frames"]) == (1, 4, 12, 2)
    assert (totals["feature_cache_hits"], totals["feature_cache_misses"]) == (0, 1)
    assert model._sums.requests == 3


def test_every_sample_tells_its_tokens_and_times(model, ask):
    (fact,) = facts(ask(model, "generate_until", [{"visuals": ["v0.mp4"], "gen_kwargs": {"max_new_tokens": 3}}]))
    assert (fact["frames"], fact["tokens_per_frame"]) == (5, 9.0)
    assert (fact["visual_tokens"], fact["newline_tokens"]) == (45, 15)
    text_ids = ids_of(model, PROMPT.format("<image>\nWhat is shown?")).shape[1] - 1
    assert fact["input_tokens"] == text_ids + 60
    assert fact["output_tokens"] <= 3
    assert fact["compressor"] == repr(build_compressor("st_gridpool"))
    assert (fact["failed"], fact["failure"]) == (False, None)
    assert set(fact["seconds"]) == {
        "decode",
        "preprocess",
        "vision",
        "projector",
        "compress",
        "prefill",
        "generate",
        "wait_for_video",
    }


def test_a_run_records_the_digests_of_its_checkpoint_and_of_its_frames(make_model, ask, checkpoint, tmp_path):
    cached = {"feature_cache": str(tmp_path / "cache"), "resume_dir": str(tmp_path / "answers")}
    # 8 frames per second, one taken each second: v0 has 40 frames, v1 has 56.
    frames = {"v0.mp4": [0, 8, 16, 24, 32], "v1.mp4": [0, 8, 16, 24, 32, 40, 48]}
    digests = [frames_digest([(Path(name), indices)]) for name, indices in frames.items()]
    records = []
    for compressor in ("nsp", "bilinear", "bilinear"):  # decoded, from the cache, resumed
        model = make_model(compressor=compressor, **cached)
        found = facts(ask(model, "generate_until", [{"visuals": [name]} for name in frames]))
        assert [one["frames_sha256"] for one in found] == digests
        model.clean()
        records.append(model.run_record)
    assert [record["resumed_requests"] for record in records] == [0, 0, 2]
    expected = answer_key({"frames": sorted(digests)})
    for record in records:
        assert record["fingerprints"]["frame_indices"] == expected
        files = record["fingerprints"]["pretrained"]
        for kind, name in (("weights", "model.safetensors"), ("settings", "tokenizer.json")):
            assert files[kind][name] == hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()


def test_images_text_and_several_videos_are_answered(make_model, ask):
    model = make_model(answer_without_visuals=True)
    images = [Image.new("RGB", (150, 90), "red"), Image.new("RGB", (40, 50), "blue")]
    documents = [
        {"visuals": []},
        {"visuals": images[:1]},
        {"visuals": images},
        {"visuals": images, "context": "First <image>, then <image>?"},
        {"visuals": ["v0.mp4", "v1.mp4"]},
    ]
    results = ask(model, "generate_until", documents)
    assert len(texts(results)) == 5
    assert [fact["frames"] for fact in facts(results)] == [0, 0, 0, 0, 12]
    assert [fact["is_blind"] for fact in facts(results)] == [True, False, False, False, False]
    assert [fact["compressor"] for fact in facts(results)] == [""] * 4 + [repr(model.compressor)]
    before = ["", "\n", " \n"]
    text_ids = [ids_of(model, PROMPT.format(f"{start}What is shown?")).shape[1] for start in before]
    image_tokens = [fact["input_tokens"] - own for fact, own in zip(facts(results), text_ids, strict=False)]
    assert image_tokens == [0, 7 * 7 + 7 * (12 + 1), 2 * 7 * 7]  # as in test_encoding.py
    expected = model.model.language_model.generate(
        ids_of(model, PROMPT.format("What is shown?")), do_sample=False, max_new_tokens=4
    )
    assert texts(results)[0] == model.model.tokenizer.decode(expected[0], skip_special_tokens=True).strip()


def test_an_unreadable_video_leaves_its_questions_unanswered(make_model, ask):
    model, logged = make_model(), []
    handler = logger.add(logged.append, level="ERROR")
    documents = [{"visuals": [name]} for name in ("v0.mp4", "broken.mp4", "missing.mp4", "broken.mp4")]
    documents.append({"exit": "video path:x.mp4 does not exist, please check"})
    results = ask(model, "generate_until", documents)
    assert texts(results)[1:] == [""] * 4
    failures = [fact["failure"] for fact in facts(results)]
    assert failures[0] is None
    assert "broken.mp4: Invalid data found" in failures[1]
    assert "missing.mp4: no such file" in failures[2]
    assert failures[4] == "task task, document 4: video path:x.mp4 does not exist, please check"
    assert [fact["failed"] for fact in facts(results)] == [False, True, True, True, True]
    model.clean()
    logger.remove(handler)
    assert (model.run_record["requests"], model.run_record["failed_requests"]) == (5, 4)
    assert len(model.run_record["failed_videos"]) == 2
    assert model.run_record["failures"] == {"unreadable video": 3, "nothing shown": 1}
    assert model.run_record["run_failed"] == str(model.verdict)
    assert (
        "the run failed: 4 of 5 questions could not be answered (nothing shown: 1, unreadable video: 3)" in logged[-1]
    )


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood", "generate_until_multi_round"])
def test_a_question_without_its_video_is_not_answered_blind(model, ask, kind):
    once = {
        "continuation": "A",
        "doc_to_text": lambda *_, previous_output, **__: (None, "", True, previous_output, None),
    }
    documents = [{"visuals": []} | once, {"visuals": ["v0.mp4"]} | once]
    results = ask(model, kind, documents)
    empty = {"generate_until": "", "loglikelihood": (math.inf, False), "generate_until_multi_round": [""]}
    assert texts(results)[0] == empty[kind]
    assert [fact["failed"] for fact in facts(results)] == [True, False]
    assert "task task, document 0: the task shows nothing" in facts(results)[0]["failure"]


def test_answers_found_blind_are_taken_up_only_where_that_is_allowed(make_model, ask, tmp_path):
    documents = [{"visuals": []}, {"visuals": ["v0.mp4"]}]
    for allowed, expected in ((True, (0, 0)), (False, (1, 1)), (True, (2, 0))):
        model = make_model(answer_without_visuals=allowed, resume_dir=str(tmp_path))
        ask(model, "generate_until", documents)
        model.clean()
        record = model.run_record
        assert (record["resumed_requests"], record["failed_requests"]) == expected


def test_a_resumed_run_counts_all_that_was_asked(make_model, ask, tmp_path):
    documents = [{"visuals": [name]} for name in ("v0.mp4", "v1.mp4", "v2.mp4", "broken.mp4")]
    for _ in range(2):
        model = make_model(resume_dir=str(tmp_path))
        ask(model, "generate_until", documents)
        model.clean()
        assert str(model.verdict) == "1 of 4 questions could not be answered (unreadable video: 1)"
    assert (model.run_record["resumed_requests"], model.run_record["run_failed"]) == (3, None)


@pytest.mark.parametrize("error", [ReadingProcessError("no module named av"), MemoryError(), OSError("no processes")])
def test_an_error_that_is_not_a_fault_of_the_video_ends_the_run(make_model, ask, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(VideoReader, "read", fail)
    with pytest.raises(SystemExit, match="1"):
        ask(make_model(), "generate_until", [{"visuals": ["v0.mp4"]}])


def test_padding_costs_nothing(model, ask, monkeypatch):
    def refuse(*args):
        raise AssertionError("a padding request was looked at")

    monkeypatch.setattr(type(model), "_answer_batch", refuse)
    assert texts(ask(model, "generate_until", [{"visuals": ["v0.mp4"], "padding": True}])) == [""]
    assert texts(ask(model, "loglikelihood", [{"continuation": "A", "padding": True}])) == [(math.inf, False)]


def test_answers_end_before_the_stop_text(model, ask):
    def answer(**gen_kwargs):
        results = ask(
            model, "generate_until", [{"visuals": ["v0.mp4"], "gen_kwargs": {"max_new_tokens": 12} | gen_kwargs}]
        )
        return texts(results)[0], facts(results)[0]["output_tokens"]

    whole, num_tokens = answer()
    assert num_tokens == 12
    stop = whole[len(whole) // 2]
    text, num_tokens = answer(until=[stop])
    assert text == whole[: whole.index(stop)].rstrip()
    assert num_tokens < 12


def test_the_loss_of_a_continuation_is_that_of_the_whole_sequence(model, ask, clips):
    documents = [{"visuals": ["v1.mp4"], "continuation": text} for text in (" B", "a longer answer")]
    results = texts(ask(model, "loglikelihood", documents))
    context = ids_of(model, PROMPT.format("<image>\nWhat is shown?"))
    for document, (loss, _) in zip(documents, results, strict=True):
        ids = ids_of(model, PROMPT.format("<image>\nWhat is shown?") + document["continuation"] + "<|im_end|>\n")
        with torch.no_grad():
            logits = model.model.language_model(
                ids, images=[pixels_of(model, clips / "v1.mp4")], modalities=["video"]
            ).logits[0]
        scored = ids[0, context.shape[1] :]
        expected = F.cross_entropy(logits[-len(scored) - 1 : -1], scored)
        assert loss == pytest.approx(expected.item(), abs=1e-4)


def test_a_continuation_that_greedy_decoding_gives_is_marked(model, ask, clips):
    ids = ids_of(model, PROMPT.format("<image>\nWhat is shown?"))
    generated = model.model.language_model.generate(
        ids, images=[pixels_of(model, clips / "v1.mp4")], modalities=["video"], do_sample=False, max_new_tokens=1
    )
    word = model.model.tokenizer.decode(generated[0])
    if list(model.model.tokenizer(word).input_ids) != generated[0].tolist():
        pytest.skip("the token is not a text of its own")
    documents = [{"visuals": ["v1.mp4"], "continuation": text} for text in (word, "another")]
    assert [greedy for _, greedy in texts(ask(model, "loglikelihood", documents))] == [True, False]


def test_a_continuation_may_be_a_part_of_the_closing(model, ask):
    """Taken for the start of the closing, "<" would leave nothing to compare, and nothing differs from nothing."""
    documents = [{"visuals": ["v0.mp4"], "continuation": "<"}]
    assert [greedy for _, greedy in texts(ask(model, "loglikelihood", documents))] == [False]


def test_a_continuation_about_an_unreadable_video_is_never_the_best(model, ask):
    results = ask(model, "loglikelihood", [{"visuals": ["broken.mp4"], "continuation": "A"}])
    assert texts(results) == [(math.inf, False)]
    assert facts(results)[0]["failed"]


def test_rounds_are_asked_until_the_task_is_done(model, ask, clips):
    seen = []

    def doc_to_text(document, previous_output, round_idx, previous_round_info):
        seen.append((round_idx, list(previous_output), previous_round_info))
        finished = round_idx == 3
        visuals = [str(clips / "v1.mp4")] if round_idx == 1 else None
        return visuals, f"Round {round_idx}?", finished, previous_output, round_idx * 10

    document = {"visuals": ["v0.mp4"], "doc_to_text": doc_to_text, "gen_kwargs": {"max_new_tokens": 3}}
    (result,) = ask(model, "generate_until_multi_round", [document])
    answers = unwrap_generation_output(result)[0]
    assert len(answers) == 3
    assert [entry[0] for entry in seen] == [1, 2, 3]
    assert [entry[2] for entry in seen] == [None, 10, 20]
    assert seen[-1][1] == answers
    assert unwrap_generation_output(result)[1].frames == 5 + 7  # the third round shows nothing


def test_other_errors_end_the_process_and_name_rank_task_and_document(model, ask):
    logged = []
    handler = logger.add(logged.append, level="CRITICAL")
    documents = [{"visuals": ["v0.mp4"]}, {"visuals": ["v0.mp4"], "context": "word " * 5000}]
    with pytest.raises(SystemExit) as ended:
        ask(model, "generate_until", documents)
    logger.remove(handler)
    assert ended.value.code == 1
    assert "rank 0, task task, document 0, 1, videos" in logged[0]  # both questions of the batch
    assert "v0.mp4" in logged[0]
    assert "ValueError: a prompt of " in logged[0]


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_a_question_may_speak_of_placeholders(model, ask, kind):
    document = {"visuals": ["v0.mp4"], "context": "<image> or <image>?", "continuation": "<image>"}
    (fact,) = facts(ask(model, kind, [document]))
    text = PROMPT.format("\n<image> or <image>?") + (kind == "loglikelihood") * "<image><|im_end|>\n"
    assert fact["input_tokens"] == len(model.model.tokenizer(text).input_ids) + 60


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_a_video_that_would_push_the_question_out_ends_the_run(make_model, ask, kind):
    model, logged = make_model(compressor="none"), []
    model.model.language_model.config.tokenizer_model_max_length = (
        300  # 5 frames of 7 x 7 tokens and 7 newlines are 280
    )
    handler = logger.add(logged.append, level="CRITICAL")
    with pytest.raises(SystemExit):
        ask(model, kind, [{"visuals": ["v0.mp4"], "continuation": "A"}])
    logger.remove(handler)
    assert "245 of them visual" in logged[0]
    assert "tokenizer_model_max_length = 300: lower max_frames_num" in logged[0]


def test_positions_are_scaled_and_prompts_may_be_longer(make_model, ask):
    model = make_model(rope_scaling=2, max_length=9000)
    (fact,) = facts(ask(model, "generate_until", [{"visuals": ["v0.mp4"]}]))
    config, rotary = model.model.language_model.config, model.model.language_model.model.rotary_emb
    width = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, width, 2) / width
    torch.testing.assert_close(rotary.inv_freq, 1 / (1e6**exponents * 2))
    assert (model.model.longest, config.max_position_embeddings) == (9000, 9000)
    assert (model._setup["rope_scaling"], model._setup["max_length"]) == (2, 9000)
    assert fact["failure"] is None


def test_what_does_not_fit_is_said_before_loading(make_model):
    logged = []
    handler = logger.add(logged.append, level="WARNING")
    make_model(compressor="none", max_length=300)  # 8 frames of 7 x 7 tokens with 7 newlines are 448
    logger.remove(handler)
    assert "8 frames make a prompt of about 512 tokens (64 for text), and the checkpoint takes" in logged[0]


def test_what_does_not_fit_is_not_repeated_where_the_script_has_said_it(make_model, monkeypatch, tmp_path):
    (tmp_path / CAUSE).touch()
    monkeypatch.setattr("sys.argv", ["lmms_eval", "--output_path", str(tmp_path)])
    logged = []
    handler = logger.add(logged.append, level="WARNING")
    make_model(compressor="none", max_length=300)
    logger.remove(handler)
    assert logged == []


def test_a_one_vision_checkpoint_is_served(golden, make_model, ask):
    model = make_model(pretrained=str(golden / "llava" / "ckpt-ov"), compressor="bilinear")
    (fact,) = facts(ask(model, "generate_until", [{"visuals": ["v0.mp4"]}]))
    assert (fact["visual_tokens"], fact["newline_tokens"]) == (5 * 4, 1)  # 4x4 patches to 2x2, one newline at the end


def test_the_time_instruction_reaches_the_model(make_model, ask):
    told = make_model(add_time_instruction=True)
    (with_times,) = facts(ask(told, "generate_until", [{"visuals": ["v0.mp4"]}]))
    (without,) = facts(ask(make_model(), "generate_until", [{"visuals": ["v0.mp4"]}]))
    sentence = (
        "The video lasts for 5.00 seconds, and 5 frames are uniformly sampled from it. These frames are located at "
        "0.00s,1.00s,2.00s,3.00s,4.00s.Please answer the following questions related to this video.\n"
    )
    added = len(told.model.tokenizer(sentence).input_ids)
    assert abs(with_times["input_tokens"] - without["input_tokens"] - added) <= 2


def test_force_sample_spreads_the_frames(make_model, ask):
    (fact,) = facts(ask(make_model(force_sample=True), "generate_until", [{"visuals": ["v0.mp4"]}]))
    assert fact["frames"] == 8


def test_a_rate_takes_the_last_frame_too(make_model, ask):
    (fact,) = facts(ask(make_model(fps=1), "generate_until", [{"visuals": ["v0.mp4"]}]))
    assert fact["frames"] == 6  # of 5 s


def test_the_vision_tower_runs_in_batches_of_the_size_asked_for(make_model, ask):
    model = make_model(vision_batch_size=3)
    sizes = []
    handle = model.model.language_model.get_vision_tower().register_forward_pre_hook(
        lambda _, inputs: sizes.append(len(inputs[0]))
    )
    ask(model, "generate_until", [{"visuals": ["v1.mp4"]}])
    handle.remove()
    assert sizes == [3, 3, 1]
    assert make_model().model.vision_batch_size is None
