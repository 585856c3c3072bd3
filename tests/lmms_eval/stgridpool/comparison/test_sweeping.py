"""A sweep over a native checkpoint."""

import gc
import json

import pytest

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


def test_a_sweep_needs_a_checkpoint(tmp_path):
    sweep = Sweep((Choice.parse("nsp"),), "quiz", "device=cpu", tmp_path)
    with pytest.raises(ValueError, match=r"--model_args must name a checkpoint: pretrained=FOLDER_OR_NAME"):
        _ = sweep.model_name
