"""The command that recommends a setting: its options, and what it prints."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.comparison.choosing import Chooser, Chosen, output_folder
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
    monkeypatch.setattr("lmms_eval_stgridpool.cli.choose.check_first", lambda name, check: None)
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
    assert lines[-2] == "Recommended: nsp@0.5."
    folder = "logs/runs/clips_[0-9a-f]{6}/choose_ckpt_frames=8_retention_of=layer_average_save=seconds"
    assert re.fullmatch(f"Results: {folder}", lines[-1])


@pytest.fixture
def default_output(choosers):
    """The folders that a search with these words uses: for results, and for answers."""

    def find(*words):
        invoke(*words)
        found = choosers[-1]
        _, equals, answers = found.model_args.partition("resume_dir=")
        return found.output, Path(answers) if equals else found.output / "answers"

    return find


def test_other_tables_and_other_options_have_other_default_folders(default_output, tmp_path):
    """Tables of one name in two folders are two tables; a search with other methods asks only what is new."""
    plain, answers = default_output(tmp_path / "a" / "clips.csv")
    assert default_output(tmp_path / "a" / ".." / "a" / "clips.csv") == (plain, answers)
    assert default_output(tmp_path / "b" / "clips.csv")[0].parent != plain.parent
    assert default_output(tmp_path / "a" / "clips.csv", "b.mp4")[0].parent != plain.parent
    options = [
        *(["-m", "nsp"], ["-m", 'nsp:{"scale":1}'], ["-m", 'nsp:{"scale":-1}'], ["--retention", "0.1"]),
        *(["--frames", "8"], ["--save", "cache"], ["--tolerance", "0.1"], ["--retention-of", "kv_read"]),
        *(["--model_args", "fps=1"], ["--model_args", "fps=2"]),
    ]
    found = [default_output(tmp_path / "a" / "clips.csv", *words) for words in options]
    assert len({plain, *(folder for folder, _ in found)}) == len(options) + 1
    assert {kept for _, kept in found} == {answers}


def test_other_checkpoints_have_other_default_folders(tmp_path):
    for name in "ab":
        (tmp_path / name / "ckpt").mkdir(parents=True)
    names = ("ckpt", "owner/ckpt", str(tmp_path / "a" / "ckpt"), str(tmp_path / "b" / "ckpt"))
    assert len({output_folder(tmp_path, [Path("a.mp4")], name, "", {}) for name in names}) == len(names)


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
    assert (found.inputs, found.model) == ((Path("a.mp4"), Path("b")), "video_hf")
    assert found.model_args == f"pretrained=ckpt,resume_dir={found.output.parent}/answers"
    assert found.output.parent.name.startswith("a_and_1_")


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
    launcher = command.index("lmms_eval_stgridpool.run.quiet_launch")
    assert command[launcher + 1] == (
        "stgridpool choose: stopped: all answers so far are kept in out/answers; give the same command again to resume"
    )
    start = command.index("choose")
    assert command[start + 1 :] == ["a.mp4", "--checkpoint", "ckpt", *words[1:], "--json"]
