"""A sweep over a native checkpoint."""

import gc
import json

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.comparison.sweeping import Sweep


def test_a_native_checkpoint_is_swept_and_continued(folder_of, clips, tmp_path):
    """A clip of 64x48 pixels and 4 frames is 2 times 6x8 tokens of two frames."""
    table = tmp_path / "quiz.csv"
    table.write_text(f"video,question,answer\n{clips / 'v0.mp4'},What is shown?,red\n{clips / 'v1.mp4'},Who?,blue\n")
    model_args = f"pretrained={folder_of('qwen2_5_vl')},device=cpu,max_frames_num=4,resume_dir={tmp_path / 'answers'}"
    choices = tuple(map(Choice.parse, ("none", "vidcom2", "nsp")))

    def sweep(output):
        return Sweep(choices, str(table), model_args, tmp_path / output, (0.25,), has_own=True).run()

    known = gc.get_freeze_count()
    found = sweep("first")
    assert gc.get_freeze_count() > known  # what was imported is not searched for garbage after each task
    assert [(row.run, row.tokens_per_video) for row in found.rows] == [
        ("uncompressed", 96),
        ("vidcom2@0.25", 24),
        ("nsp@0.25", 24),
    ]
    assert found.remarks[0].startswith("none@0.25: left out:")
    [results] = (tmp_path / "first" / "nsp@0.25").rglob("*_results.json")
    config = json.loads(results.read_text())["config"]
    assert config["model"] == "video_hf"
    assert config["model_args"].startswith(f"{model_args},compressor=nsp")
    sweep("again")
    records = [json.loads(file.read_text()) for file in (tmp_path / "again").rglob("*_run.json")]
    assert [(one["requests"], one["resumed_requests"]) for one in records] == [(0, 2)] * 3


@pytest.fixture
def quiz(clips, tmp_path):
    """A table of one question about a clip of 64x48 pixels and 4 frames, and one about a file that is no video."""

    def write(clip):
        table = tmp_path / f"{clip}.csv"
        table.write_text(f"video,question,answer\n{clips / clip},What is shown?,red\n")
        return table

    return write


def test_budgets_that_are_not_left_are_remarks_without_a_retention_too(folder_of, quiz, tmp_path):
    """The clip is 2 times 6x8 tokens of two frames; 10 tokens are no whole frames, which the run says."""
    words = ['random:{"tokens":1000}', 'vidcom2:{"preset":"released"}', 'temporal_average:{"tokens":10}', "nsp"]
    model_args = f"pretrained={folder_of('qwen2_5_vl')},device=cpu,max_frames_num=4"
    options = ["--tasks", quiz("v0.mp4"), "--model_args", model_args, "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, ["sweep", *words, *options])))
    assert result.exit_code == 0, result.exception
    *_, larger, missed, left_out, _, _ = result.output.splitlines()
    assert larger == "random_tokens=1000: Random keeps all 96 tokens that reach it: its budget, tokens=1000, is larger"
    assert missed == (
        "vidcom2_preset=released: preset='released' of VidCom2 may miss its budget, retention=0.25: the video decides "
        "how many tokens it leaves"
    )
    assert left_out.startswith("temporal_average_tokens=10: left out: temporal_average leaves whole frames")


def test_a_sweep_without_a_readable_video_has_no_such_remarks(folder_of, quiz, tmp_path):
    model_args = f"pretrained={folder_of('qwen2_5_vl')},device=cpu,max_frames_num=4"
    choice = Choice.parse('random:{"tokens":1000}')
    found = Sweep((choice,), str(quiz("broken.mp4")), model_args, tmp_path / "out").run()
    assert (found.remarks, found.failed) == ((), True)


def test_a_sweep_needs_a_checkpoint(tmp_path):
    sweep = Sweep((Choice.parse("nsp"),), "quiz", "device=cpu", tmp_path)
    with pytest.raises(ValueError, match=r"--model_args must name a checkpoint: pretrained=FOLDER_OR_NAME"):
        _ = sweep.model_name
