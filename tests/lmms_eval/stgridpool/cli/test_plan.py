"""``stgridpool plan`` on the miniature."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_video):
    """A clip of 10 seconds at 6 frames per second."""
    return str(write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=60, rate=6))


def invoke(*words, checkpoint=MINIATURE):
    return CliRunner().invoke(app, ["plan", *words, "--checkpoint", str(checkpoint)])


def test_frames_and_retention_are_swept(video):
    sweep = ["--retention", "0.5", "--retention", "0.25", "--frames", "4", "--frames", "8"]
    result = json.loads(invoke(video, "-c", "visionzip", *sweep, "--fit", "100", "--json").output)
    assert [(one["name"], one["frames"], one["tokens"]) for one in result["plans"]] == [
        ("visionzip@0.5", 4, 32),
        ("visionzip@0.5", 8, 64),
        ("visionzip@0.25", 4, 16),
        ("visionzip@0.25", 8, 32),
    ]
    assert (result["model"], result["fit_tokens"], result["retention_of"]) == ("llava_video", 100, "entering_llm")
    assert result["frames_that_fit"] == {"visionzip@0.5": 8, "visionzip@0.25": 12}  # 8 and 4 tokens, up to 4 newlines


def test_a_table_is_printed(video):
    lines = invoke(video, "-c", "nsp", "-c", "sttm", "--frames", "4").output.splitlines()
    [nsp] = [line.split() for line in lines if line.split()[:1] == ["nsp"]]
    assert nsp[1:4] == ["4", "36", "12"]
    [sttm] = [line.split() for line in lines if line.split()[:1] == ["sttm"]]
    assert sttm[1:9] == ["4", "64", "at", "most", "16", "-", "-", "100.0"]
    assert lines[-3:] == [
        "tokens enter the language model; without a method the checkpoint reads 64 of 4 frames, newlines apart",
        "TFLOPs and KV cache (16 bits) are estimates for the prefill, with 64 tokens of text",
        "the checkpoint's context is 32768 tokens",
    ]


def test_a_missing_video_is_one_line():
    error = invoke("none.mp4").exception
    assert isinstance(error, ValueError)  # which the command shows as its last line
    assert str(error) == "cannot read video none.mp4: no such file"


def test_what_one_method_cannot_do_is_a_remark(video):
    sweep = ["--retention", "0.5", "--retention", "0.25", "--frames", "4", "--json"]
    found = json.loads(invoke(video, "-c", "visionzip", "-c", "none", *sweep).output)
    assert [one["name"] for one in found["plans"]] == ["visionzip@0.5", "visionzip@0.25"]
    assert [remark.partition(":")[0] for remark in found["remarks"]] == ["none@0.5", "none@0.25"]
    merge = 'framefusion_merge:{"threshold":0.6}'
    lines = invoke(video, "-c", merge, "-c", "nsp", "--frames", "4", "--fit", "100").output.splitlines()
    assert "8 frames fit into 100 tokens with nsp" in lines
    assert lines[-1].startswith("framefusion_merge_threshold=0.6: the number of tokens that FrameFusionMerge(")
    error = invoke(video, "-c", "none", "--retention", "0.5").exception
    assert str(error).startswith("no method could be planned: none@0.5: left out: ")


def test_budgets_that_are_not_left_are_remarks(video):
    """A frame is 16 tokens."""
    words = ["-c", 'visionzip:{"tokens":100}', "-c", 'evs+random:{"evs":{"tokens":20},"random":{"tokens":30}}']
    [*_, visionzip, chain] = invoke(video, *words, "--frames", "4").output.splitlines()
    assert visionzip.endswith(": VisionZip keeps all 64 tokens that reach it: its budget, tokens=100, is larger")
    assert chain.endswith(": Random keeps all 20 tokens that reach it: its budget, tokens=30, is larger")
    found = json.loads(invoke(video, *words[:2], "--frames", "4", "--frames", "8", "--json").output)
    assert found["remarks"] == [visionzip]  # none for 128 tokens


def test_a_definition_is_checked_without_a_retention_too(video):
    assert str(invoke(video, "--retention-of", "last").exception).startswith("--retention-of cannot be 'last'. Avail")


def test_options_have_forms_with_hyphens(video):
    found = json.loads(invoke(video, "-c", "nsp", "--mm-newline-position", "no_token", "--json").output)
    assert found["plans"][0]["newlines"] == 0


def test_a_native_checkpoint_is_planned(folder_of, clips):
    """Frames of 64x48 pixels are 48 tokens for two; the family takes two frames per second of 5."""
    options = ["-c", "vidcom2", "-c", "nsp", "--retention", "0.25", "--frames", "4", "--frames", "8", "--fit", "100"]
    result = invoke(str(clips / "v0.mp4"), *options, "--json", checkpoint=folder_of("qwen3_vl"))
    found = json.loads(result.stdout)
    assert [(one["name"], one["frames"], one["tokens"], one["own_tokens"]) for one in found["plans"]] == [
        ("vidcom2@0.25", 4, 24, 96),
        ("vidcom2@0.25", 8, 48, 192),
        ("nsp@0.25", 4, 24, 96),
        ("nsp@0.25", 8, 48, 192),
    ]
    assert (found["model"], found["frames_that_fit"]) == ("video_hf", {"vidcom2@0.25": 16, "nsp@0.25": 16})
    lines = invoke(str(clips / "v0.mp4"), "-c", "none", checkpoint=folder_of("qwen3_vl")).output.splitlines()
    [none] = [line.split() for line in lines if line.split()[:1] == ["none"]]
    assert none[1:7] == ["10", "240", "0", "240", "240", "100.0"]


def test_methods_that_a_family_cannot_run_and_frames_that_it_never_samples_are_remarks(folder_of, clips):
    words = [str(clips / "v0.mp4"), "-c", "none", "-c", "earlytom_frames", "--frames", "4", "--fit", "1000"]
    lines = invoke(*words, checkpoint=folder_of("llava_onevision")).stdout.splitlines()
    assert "62 frames fit into 1000 tokens with none" in lines  # 16 tokens each, and a newline
    assert any(line.startswith("earlytom_frames, 4 frames: left out: EarlyTomFrames(") for line in lines)
    sampling = "the checkpoint's sampling takes at most 32 frames of a video, unless --frames or fps changes that"
    assert lines[-1] == sampling


def test_nvila_is_planned_with_its_own_frames(golden, video):
    """The checkpoint spreads eight frames evenly; its encoder joins them in time."""
    checkpoint = golden / "nvila" / "ckpt-video"
    found = json.loads(invoke(video, "-c", "none", "-c", 'fastv:{"layer":1}', "--json", checkpoint=checkpoint).stdout)
    settings = json.loads((checkpoint / "config.json").read_text())
    assert {one["frames"] for one in found["plans"]} == {settings["num_video_frames"]}
    frames = ["--model_args", "video_encoding=frames", "--json"]
    alone = json.loads(invoke(video, "-c", "none", *frames, checkpoint=checkpoint).stdout)
    assert alone["plans"][0]["own_tokens"] > found["plans"][1]["own_tokens"]


def test_a_folder_of_pictures_is_planned(tmp_path):
    for number in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    found = json.loads(invoke(str(tmp_path), "-c", "nsp", "--frames", "4", "--json").stdout)
    assert found["plans"][0]["frames"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model_args", "max_frames_num=4"], "max_frames_num in --model_args would be ignored: use --frames"),
        (["--model_args", "prefetch=1"], "prefetch in --model_args changes no count: leave it out; those that do are"),
        (["--model_args", "fps=1", "--fps", "2"], "fps is 1 in --model_args and 2.0 in --fps: leave one out"),
        (["--retention", "25"], "--retention must be"),
        (["-c", "nsb"], "nsb: there is no compressor 'nsb', did you mean"),
        (["--mm_newline_position", "rows"], "mm_newline_position cannot be 'rows'"),
        (["--fps", "0"], "fps must be"),
        (["--frames", "8", "--frames", "0"], "--frames must be a whole number from 1 to 100000, got 0"),
        (["--fit", "0"], "--fit must be a whole number"),
    ],
)
def test_wrong_words_are_named(video, words, message):
    assert str(invoke(video, *words).exception).startswith(message)


def test_options_of_other_checkpoints_are_refused(folder_of, clips):
    error = invoke(str(clips / "v0.mp4"), "--force_sample", checkpoint=folder_of("qwen3_vl")).exception
    assert str(error).startswith("video_hf has no argument 'force_sample': sampling, fps and max_frames_num decide")
    error = invoke(str(clips / "v0.mp4"), checkpoint=clips).exception
    assert "config.json" in str(error)
