"""``stgridpool ask`` on the miniature."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.answers.asking import ask
from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.llava_video import LlavaVideo
from native_models.families import save
from stgridpool import NSP, Bilinear, CDPruner, FastV, VisionZip, build_compressor
from stgridpool.finite import NonFiniteError

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")
QUESTIONS = ("What colour is the moving shape?\nA. red\nB. blue", "Which shape moves?\nA. circle\nB. square\nC. cross")


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_video):
    """A clip of 10 seconds at 6 frames per second: 10 frames are sampled."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=60, rate=6)


@pytest.fixture(scope="module")
def encoder():
    return LlavaVideo(pretrained=MINIATURE, max_frames_num=4, device="cpu").encoder


def test_questions_get_the_answers_that_each_gets_alone(encoder, video):
    methods = {"nsp": NSP(), "fastv": FastV(retention=0.5), "cdpruner": CDPruner()}
    together = ask(encoder, video, QUESTIONS, methods, 8)
    for index, question in enumerate(QUESTIONS):
        alone = ask(encoder, video, [question], methods, 8)
        for one, other in zip(together.replies, alone.replies, strict=True):
            assert one.answers[index] == other.answers[0]
    assert [reply.shares_prefix for reply in together.replies] == [True, False, False]


def test_a_question_hashes_no_weights(video, monkeypatch):
    """SHA-256 of 72B parameters takes minutes, and no record of a run is written."""
    hashed = []
    monkeypatch.setattr("lmms_eval_stgridpool.kept.fingerprints.file_digest", lambda file, cache: hashed.append(file))
    model = LlavaVideo(pretrained=MINIATURE, max_frames_num=4, device="cpu")
    ask(model.encoder, video, QUESTIONS[:1], {"nsp": NSP()}, 2)
    assert model._fingerprints._thread.ident is None  # it has not been started
    assert hashed == []
    model._answer_all([], "generate_until", "")  # as lmms-eval does, for a run
    model._fingerprints.result()
    assert "model.safetensors" in {file.name for file in hashed}


def test_tokens_and_stages_are_reported(encoder, video):
    methods = {"own": Bilinear(2), "nsp": NSP(), "zip": VisionZip(retention=0.5), "fastv": FastV(retention=0.5)}
    replies = ask(encoder, video, QUESTIONS, methods, 4)
    own, nsp, visionzip, fastv = replies.replies
    assert [one.visual_tokens for one in replies.replies] == [4 * 16, 4 * 9, 4 * 8, 4 * 16]  # 7x7 patches a frame
    assert (own.frames, own.newline_tokens, nsp.newline_tokens) == (4, 16, 12)
    assert (own.retention["last_layer"], nsp.retention["last_layer"]) == (1, 36 / 64)
    assert (fastv.retention["entering_llm"], fastv.retention["last_layer"]) == (1, 0.5)
    assert {"decode", "vision"} <= replies.seconds.keys()  # once for all
    for reply in replies.replies:
        assert {"projector", "compress", "prefill", "generate"} <= reply.seconds.keys()
        assert not {"decode", "vision"} & reply.seconds.keys()
    assert visionzip.compressor.startswith("VisionZip(retention=0.5")


def test_evidence_is_computed_for_all_methods_at_once(encoder, video):
    seen = []
    plain = type(encoder.model).encode
    model = encoder.model
    model.encode = lambda *words: seen.append(words[1]) or plain(model, *words)
    try:
        ask(encoder, video, QUESTIONS[:1], {"zip": VisionZip(), "nsp": NSP()}, 2)
    finally:
        del model.encode
    assert [sorted(map(repr, needs)) for needs in seen] == [sorted(map(repr, VisionZip().needs))]


def test_frames_merged_in_the_tower_come_from_the_cache_the_second_time(video, tmp_path):
    encoder = LlavaVideo(pretrained=MINIATURE, max_frames_num=4, device="cpu", feature_cache=str(tmp_path)).encoder
    methods = {"early": build_compressor("earlytom_frames+bilinear", earlytom_frames={"layers": [-2, -1]})}
    first, second = (ask(encoder, video, QUESTIONS[:1], methods, 4) for _ in range(2))
    assert [reply.answers for reply in first.replies] == [reply.answers for reply in second.replies]
    assert "vision" in first.seconds
    assert "vision" not in second.seconds


def test_a_prompt_that_is_too_long_is_refused(encoder, video, monkeypatch):
    monkeypatch.setattr(type(encoder.model), "longest", 50)
    with pytest.raises(ValueError, match="is longer than the checkpoint's tokenizer_model_max_length = 50"):
        ask(encoder, video, QUESTIONS[:1], {"own": Bilinear(2)})


def invoke(*words):
    return CliRunner().invoke(app, ["ask", *map(str, words), "--checkpoint", MINIATURE, "--frames", "2"])


def test_the_command_shows_answers_side_by_side(video):
    result = invoke(video, *QUESTIONS, "-c", "nsp", "--compare", 'average:{"kernel_size":3}', "--max-new-tokens", 2)
    lines = result.stdout.splitlines()
    assert any(line.split() == ["question", "nsp", "average_kernel_size=3"] for line in lines)
    assert any(line.split()[:4] == ["tokens", "18", "+", "6"] for line in lines)  # two frames of 3 rows
    assert lines[-1].startswith("once for all: ")


def test_the_command_prints_json(video):
    found = json.loads(invoke(video, QUESTIONS[0], "--json", "--max-new-tokens", 2).stdout)
    assert [reply["name"] for reply in found["replies"]] == ["st_gridpool"]
    assert found["questions"] == [QUESTIONS[0]]


@pytest.mark.parametrize(
    ("compressor", "message"),
    [
        ("evs+ts_llava", r"^evs\+ts_llava: TSLLaVA\(.*needs tokens that fill a lattice, and EVS\(.*swap them"),
        ('visionzip+fastv:{"fastv":{"layer":5}}', "acts at layer 5, and the language model has 5 layers"),
    ],
)
def test_methods_that_cannot_work_are_refused_before_weights_are_read(compressor, message, monkeypatch):
    monkeypatch.setattr("lmms_eval_stgridpool.llava_video.LlavaVideo.__init__", lambda *_, **__: pytest.fail("loaded"))
    assert re.search(message, str(invoke(__file__, "Why?", "-c", compressor).exception))


def test_a_budget_that_only_other_lengths_meet_is_left_to_the_video(video):
    budget = 'temporal_average:{"tokens":32}'  # two frames of 16, whole frames that one of 16 does not have
    assert invoke(video, "Why?", "-c", budget, "--max-new-tokens", 2).exception is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.mp4", "Why?"), "there is no video none.mp4"),
        (("none.mp4", "Why?", "-c", "nps"), "nps: there is no compressor 'nps', did you mean 'nsp'?"),
        (("none.mp4", "Why?", "-c", ""), ": there is no compressor ''"),
        ((__file__, "Why?"), "cannot read video"),
        (
            (__file__, "Why?", "--model_args", "compressor=nsp"),
            "compressor in --model_args would be ignored: use --compressor",
        ),
        (
            (__file__, "Why?", "--model_args", "max_frames_num=3"),
            "max_frames_num in --model_args would be ignored: use --frames",
        ),
        (
            (__file__, "Why?", "--model_args", "share_prefix=False"),
            "share_prefix in --model_args has no effect on stgridpool ask: leave it out",
        ),
        ((__file__, "Why?", "--model_args", "max_frame_num=3"), "llava_video has no argument 'max_frame_num', did you"),
    ],
)
def test_what_cannot_be_answered_is_one_line(words, message):
    error = invoke(*words).exception
    assert isinstance(error, ValueError)
    assert str(error).startswith(message)


def test_native_models_answer(video, tmp_path):
    words = ["ask", str(video), QUESTIONS[0], "--checkpoint", str(save("qwen2_5_vl", tmp_path)), "--frames", "4"]
    words += ["--model_args", "device=cpu,torch_dtype=float32,max_pixels=4096,min_pixels=1024", "--json"]
    found = CliRunner().invoke(app, [*words, "-c", "none", "--compare", "average", "--max-new-tokens", "2"])
    assert found.exception is None
    none, average = json.loads(found.stdout)["replies"]
    assert none["visual_tokens"] > average["visual_tokens"] > 0


def test_an_answer_from_nan_is_not_an_answer(encoder, video, monkeypatch):
    weight = encoder.model.language_model.get_output_embeddings().weight
    monkeypatch.setattr(weight, "data", weight.data * float("nan"))
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        ask(encoder, video, QUESTIONS[:1], {"own": Bilinear(2)}, 2)
