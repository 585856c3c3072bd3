"""Digests change with what they stand for, and with nothing else."""

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

import llava
import lmms_eval_stgridpool
import lmms_eval_stgridpool.kept.identity as module
import stgridpool
from lmms_eval_stgridpool.kept.identity import (
    answer_key,
    checkpoint_version,
    code_version,
    file_identity,
    git_commit,
    source_digest,
    visual_identity,
)


def test_keys():
    facts = {"task": "t", "document": 3, "gen_kwargs": {"temperature": 0, "until": ["\n"]}}
    assert answer_key(facts) == answer_key(dict(reversed(facts.items())))
    assert answer_key(facts) != answer_key({**facts, "document": 4})
    assert answer_key(facts) != answer_key({**facts, "gen_kwargs": {"temperature": 1, "until": ["\n"]}})
    assert answer_key({"video": os.fsdecode(b"\xff.mp4")}) != answer_key({"video": os.fsdecode(b"\xfe.mp4")})


def test_a_video_that_changes_is_another_one(tmp_path):
    video = tmp_path / "a.mp4"
    missing = file_identity(video)
    video.write_bytes(b"1")
    before = file_identity(video)
    assert missing != before
    assert json.loads(json.dumps(before)) == before
    os.utime(video, ns=(1, 1))
    assert file_identity(video) != before


def test_pictures_are_known_by_their_pixels(tmp_path):
    pictures = [Image.new("RGB", (4, 2), color) for color in ("red", "red", "blue")]
    pictures += [
        Image.new("RGB", (2, 4), "red"),
        Image.new("L", (4, 2)),
        Image.new("P", (4, 2)),
        Image.new("P", (4, 2)),
    ]
    pictures[-1].putpalette([9, 9, 9])
    keys = [answer_key({"picture": visual_identity(picture)}) for picture in pictures]
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(pictures) - 1
    (tmp_path / "a.png").write_bytes(b"1")
    assert visual_identity(str(tmp_path / "a.png")) == [file_identity(tmp_path / "a.png")]


@pytest.mark.parametrize(
    "name",
    ["config.json", "merges.txt", "vocab.model", "chat_template.jinja", "model.safetensors", "pytorch_model.bin"],
)
def test_every_file_of_a_checkpoint_counts(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text('{"a": 1}')
    before = checkpoint_version(str(tmp_path), None)
    (tmp_path / "answers").mkdir()
    (tmp_path / ".gitattributes").touch()
    assert checkpoint_version(str(tmp_path), None) == before
    (tmp_path / name).write_text('{"a": 12}')
    assert checkpoint_version(str(tmp_path), None) != before


def test_source_is_known_by_what_it_says_not_by_where_it_lies(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x.py").write_text("1")
        (tmp_path / name / "notes.md").write_text(name)
    digest = source_digest(tmp_path / "a")
    assert source_digest(tmp_path / "b") == digest
    (tmp_path / "b" / "deep" / "x.py").write_text("2")
    assert source_digest(tmp_path / "b") != digest
    (tmp_path / "a" / "deep" / "x.py").rename(tmp_path / "a" / "y.py")
    assert source_digest(tmp_path / "a") != digest
    assert source_digest(tmp_path / "a", tmp_path / "a" / "y.py") != source_digest(tmp_path / "a")


def test_the_code_is_known_without_a_commit(monkeypatch):
    """In an installed wheel there is none; a tree with changes is told apart by its source."""
    source = code_version()["source"]
    monkeypatch.setattr(module, "own_commit", lambda: None)
    code = code_version.__wrapped__()
    assert code["commit"] is None
    assert code["torch"] == version("torch")
    assert code["source"] == source
    folders = {Path(package.__path__[0]) for package in (stgridpool, llava, lmms_eval_stgridpool)}
    read = []
    monkeypatch.setattr(module, "source_digest", lambda *sources: read.extend(sources))
    code_version.__wrapped__()
    assert set(read) == folders


def test_the_commit_is_that_of_the_repository_that_tracks_the_file(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout

    file = tmp_path / "module.py"
    file.write_text("1")
    assert git_commit(file) is None
    git("init", "-q")
    assert git_commit(file) is None
    git("add", "module.py")
    git("commit", "-qm", "Add")
    assert git_commit(file) == git("rev-parse", "HEAD").strip()
    file.write_text("2")
    assert git_commit(file).endswith("-dirty")


def test_a_method_of_another_package_is_part_of_the_code(tmp_path):
    method = tmp_path / "method.py"
    method.write_text("WEIGHT = 1")
    before = code_version.__wrapped__(method)["source"]
    method.write_text("WEIGHT = 2")
    assert len({before, code_version.__wrapped__(method)["source"], code_version.__wrapped__()["source"]}) == 3
