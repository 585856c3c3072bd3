"""Features are extracted ahead of time, by one process or several, and only once."""

import math
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lmms_eval_stgridpool.questions.exchange import Exchange
from lmms_eval_stgridpool.questions.path_videos import videos_of_paths
from lmms_eval_stgridpool.videos import extraction
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "extract_features.py"


@pytest.fixture
def extract(load_script, workplace, monkeypatch):
    """Function that runs the command in the workplace; returns the exit status."""

    def run(*words):
        monkeypatch.chdir(workplace)
        monkeypatch.setattr(sys, "argv", ["extract_features.py", *map(str, words)])
        with pytest.raises(SystemExit) as ending:
            load_script("extract_features").main()
        return int(ending.value.code)

    return run


@pytest.mark.slow
def test_videos_are_extracted_once(
    extract, workplace, miniature, tmp_path, capsys, start_programs, environments_of_ranks
):
    cache, model_args = tmp_path / "cache", f"pretrained={miniature},max_frames_num=16,feature_cache={tmp_path}/cache"
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'bad.mp4'}\n\n")
    words = ["--tasks", "videomme_local", "--model_args", model_args, tmp_path / "list.txt"]
    program = [SCRIPT, *words]
    both = start_programs(program, program, cwd=workplace, environments=environments_of_ranks(2))
    assert 1 in both.wait().statuses
    stdout, stderr = ("".join(log.read_text() for log in logs) for logs in zip(*both.logs, strict=True))
    assert "3 videos: 2 encoded, 0 were there, 1 failed" in stdout
    assert f"cannot read video {tmp_path / 'bad.mp4'}" in stderr
    assert len(list(cache.rglob("*.safetensors"))) == 2
    assert extract("--model_args", f"{model_args},device=cpu", "data/videomme") == 0
    assert "2 videos: 0 encoded, 2 were there, 0 failed" in capsys.readouterr().out


def test_features_that_are_not_finite_are_a_failure(tmp_path):
    made = VideoFeatures(torch.tensor([[[1.0, math.nan]]]).half(), (0.0,), 1.0)
    encoder = SimpleNamespace(
        loader=SimpleNamespace(expect=lambda _: None),
        features=lambda *_: [made],
        cache=SimpleNamespace(is_writable=True),
    )
    model = SimpleNamespace(encoder=encoder, rank=0, device="cpu", exchange=Exchange(0, 1, timedelta(hours=1)))
    known, failures = extraction.extract(model, [tmp_path / "a.mp4"])
    assert known == 0
    assert failures[0].startswith(f"{tmp_path / 'a.mp4'}: NaN or infinity in the vision tower with torch_dtype=float16")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model_args", "pretrained=x", "a.mp4"), "--model_args must name a folder: feature_cache=FOLDER"),
        (("--model_args", "pretrained=x,feature_cache=y"), "name tasks or videos"),
    ],
)
def test_what_says_too_little_is_refused(extract, capsys, words, message):
    assert extract(*words) == 2
    assert message in capsys.readouterr().err


def test_folders_and_lists_stand_for_their_videos(tmp_path):
    names = videos_of_paths
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "deep/a.MKV", "deep/notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.jpg").touch()
    (tmp_path / "list.txt").write_text("x.mp4\n\ny.mp4\n")
    assert names([tmp_path]) == [tmp_path / "b.mp4", tmp_path / "deep" / "a.MKV"]
    assert names([tmp_path / "pictures"]) == [tmp_path / "pictures"]
    assert names([tmp_path / "list.txt", tmp_path / "b.mp4"]) == [Path("x.mp4"), Path("y.mp4"), tmp_path / "b.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no videos in .*empty"):
        names([tmp_path / "empty"])


def test_help(extract, capsys):
    assert extract("--help") == 0
    assert "Fill a feature cache ahead of time" in capsys.readouterr().out
