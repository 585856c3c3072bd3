"""``stgridpool plan`` on the miniature."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app

MINIATURE = str(Path(__file__).resolve().parents[4] / "scripts" / "nano" / "checkpoint")


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_video):
    """A clip of 10 seconds at 6 frames per second."""
    return str(write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=60, rate=6))


def invoke(*words):
    return CliRunner().invoke(app, ["plan", *words, "--checkpoint", MINIATURE])


def test_frames_and_retention_are_swept(video):
    sweep = ["--retention", "0.5", "--retention", "0.25", "--frames", "4", "--frames", "8"]
    result = json.loads(invoke(video, "-c", "visionzip", *sweep, "--fit", "100", "--json").output)
    assert [(one["name"], one["frames"], one["tokens"]) for one in result["plans"]] == [
        ("visionzip@0.5", 4, 32),
        ("visionzip@0.5", 8, 64),
        ("visionzip@0.25", 4, 16),
        ("visionzip@0.25", 8, 32),
    ]
    assert result["frames_that_fit"] == {"visionzip@0.5": 8, "visionzip@0.25": 12}  # 8 and 4 tokens, up to 4 newlines


def test_a_table_is_printed(video):
    lines = invoke(video, "-c", "nsp", "-c", "sttm", "--frames", "4").output.splitlines()
    [nsp] = [line.split() for line in lines if line.split()[:1] == ["nsp"]]
    assert nsp[1:4] == ["4", "36", "12"]
    [sttm] = [line.split() for line in lines if line.split()[:1] == ["sttm"]]
    assert sttm[1:8] == ["4", "64", "at", "most", "16", "-", "-"]


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


def test_a_definition_is_checked_without_a_retention_too(video):
    assert str(invoke(video, "--retention-of", "last").exception).startswith("--retention-of cannot be 'last'. Avail")


def test_options_have_forms_with_hyphens(video):
    found = json.loads(invoke(video, "-c", "nsp", "--mm-newline-position", "no_token", "--json").output)
    assert found["plans"][0]["newlines"] == 0
