"""The command that recommends a setting: its options, and what it prints."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.comparison.choosing import Chooser, Chosen
from lmms_eval_stgridpool.comparison.recommendation import Recommendation
from lmms_eval_stgridpool.comparison.settings import Mean, Setting

SETTING = Setting(
    "nsp@0.5",
    "compressor=nsp",
    Mean(0.875, 0.0625, 8, 2),
    None,
    Mean(0.125, 0.0625, 8, 2),
    Mean(1.5, None, 8, 2),
    Mean(20.25, 0.5, 8, 2),
    1234.4,
    True,
)
CHOSEN = Chosen((SETTING,), Recommendation("nsp@0.5", "Recommended: nsp@0.5."), 0.02, 8, 9, 2, ("a remark",))


@pytest.fixture
def choosers(monkeypatch):
    """The searches that are started."""
    found = []
    settings = {"model_type": "qwen2_5_vl"}
    checks = "lmms_eval_stgridpool.run.checkpoint_checks.read_checkpoint_settings"
    monkeypatch.setattr(checks, lambda name: (None, settings))
    monkeypatch.setattr(Chooser, "run", lambda self: found.append(self) or CHOSEN)
    return found


def invoke(*words):
    result = CliRunner().invoke(app, ["choose", *map(str, words), "--checkpoint", "ckpt"])
    assert result.exception is None, result.exception
    return result.output


def test_it_shows_every_setting_and_the_recommendation_last(choosers):
    lines = invoke("clips.csv", "--frames", 8).splitlines()
    [row] = [line.split() for line in lines if line.lstrip().startswith("nsp@0.5")]
    assert row == ["nsp@0.5", "87.5", "±", "6.2", "%", "12.5", "±", "6.2", "1.500", "20.25", "±", "0.50", "1234", "yes"]
    assert "8 of 9 questions about 2 videos; loss in points;" in "".join(lines)
    assert lines[-2:] == [
        "Recommended: nsp@0.5.",
        "Results: logs/runs/clips/choose_max_frames_num=8_retention_of=layer_average",
    ]


def test_defaults(choosers):
    invoke("a.mp4", "b")
    [found] = choosers
    assert [method.name for method in found.methods] == ["st_gridpool", "average", "vidcom2", "random"]
    assert (found.retention, found.retention_of, found.cost, found.tolerance) == (
        (0.5, 0.25),
        "layer_average",
        "seconds",
        None,
    )
    assert (found.inputs, found.model, found.model_args) == ((Path("a.mp4"), Path("b")), "video_hf", "pretrained=ckpt")
    assert found.output == Path("logs/runs/a_and_1/choose_retention_of=layer_average")


def test_options_are_handed_over(choosers):
    words = ["a.mp4", "-m", "nsp", "-m", 'random:{"seed":1}', "--retention", 0.1, "--retention-of", "last_layer"]
    words += ["--model_args", "fps=1", "--tolerance", 0.05, "--save", "cache", "-o", "out", "--json"]
    assert json.loads(invoke(*words))["recommendation"]["run"] == "nsp@0.5"
    [found] = choosers
    assert [method.folder for method in found.methods] == ["nsp", "random_seed=1"]
    assert (found.retention, found.retention_of, found.cost, found.tolerance) == ((0.1,), "last_layer", "cache", 0.05)
    assert (found.model_args, found.output) == ("pretrained=ckpt,fps=1", Path("out"))


def test_several_processes_get_the_same_options(choosers, monkeypatch):
    class LaunchedError(Exception):
        pass

    def launched(program, words, environment):
        raise LaunchedError(words)

    monkeypatch.setattr("os.execvpe", launched)
    words = ["a.mp4", "--retention-of", "kv_read", "--save", "cache", "--methods", "nsp"]
    words += ["--retention", "0.5", "--frames", "8", "--model_args", "fps=1", "--tolerance", "0.05", "--output", "out"]
    result = CliRunner().invoke(app, ["choose", *words, "--checkpoint", "ckpt", "--json", "-n", "2"])
    assert isinstance(result.exception, LaunchedError)
    [command] = result.exception.args
    start = command.index("choose")
    assert command[start + 1 :] == ["a.mp4", "--checkpoint", "ckpt", *words[1:], "--json"]
