import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmms_eval_stgridpool.kept.fingerprints import (
    CheckpointFingerprints,
    task_files,
    task_fingerprints,
    tower_from_outside,
    weight_files,
)
from lmms_eval_stgridpool.kept.identity import frames_digest


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_every_weight_file_and_every_settings_file_has_a_digest(tmp_path):
    settings = {"config__json": "c", "tokenizer__json": "t", "merges__txt": "m", "preprocessor_config__json": "p"}
    write(tmp_path / "model", a__safetensors="one", b__safetensors="two", notes__md="n", optimizer__pt="o", **settings)
    write(tmp_path / "head", model__safetensors="three")
    found = CheckpointFingerprints(
        {"pretrained": str(tmp_path / "model"), "pool_head": str(tmp_path / "head"), "vision_tower": "open_clip_hub:x"},
        tmp_path / "kept",
    ).result()
    assert found["pretrained"]["weights"] == {"a.safetensors": sha256("one"), "b.safetensors": sha256("two")}
    assert found["pretrained"]["settings"] == {
        "config.json": sha256("c"),
        "merges.txt": sha256("m"),
        "preprocessor_config.json": sha256("p"),
        "tokenizer.json": sha256("t"),
    }
    assert found["pool_head"] == {"weights": {"model.safetensors": sha256("three")}, "settings": {}}
    assert list(found) == ["pretrained", "pool_head"]


def test_a_vision_tower_counts_only_if_its_weights_come_from_outside(tmp_path):
    tower = "model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight"
    for name, tensors in (("whole", {tower: torch.zeros(1)}), ("rest", {"lm_head.weight": torch.zeros(1)})):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    write(tmp_path / "parts", config__json="{}")
    found = {name: tower_from_outside(str(tmp_path / name), "google/tower") for name in ("whole", "rest", "parts")}
    assert found == {"whole": None, "rest": "google/tower", "parts": None}


def test_a_checkpoint_in_parts_has_the_files_of_its_parts(tmp_path):
    write(tmp_path, config__json="{}")
    write(tmp_path / "llm", model__safetensors="one", tokenizer__json="t")
    write(tmp_path / "vision_tower", model__safetensors="two")
    write(tmp_path / ".cache", model__safetensors="hidden")
    found = CheckpointFingerprints({"pretrained": str(tmp_path)}, tmp_path / ".kept").result()["pretrained"]
    assert found["weights"] == {
        "llm/model.safetensors": sha256("one"),
        "vision_tower/model.safetensors": sha256("two"),
    }
    assert found["settings"] == {"config.json": sha256("{}"), "llm/tokenizer.json": sha256("t")}


def test_the_parts_may_lie_in_a_folder_called_model(tmp_path):
    write(tmp_path / "model", config__json="c")
    write(tmp_path / "model" / "llm", config__json="l", model__safetensors="one")
    found = CheckpointFingerprints({"pretrained": str(tmp_path)}, tmp_path / ".kept").result()["pretrained"]
    assert found["weights"] == {"model/llm/model.safetensors": sha256("one")}
    assert found["settings"] == {"model/config.json": sha256("c"), "model/llm/config.json": sha256("l")}


def test_a_tower_in_the_old_format_counts_where_there_is_no_other(tmp_path):
    write(tmp_path, pytorch_model__bin="old", training_args__bin="x")
    assert [file.name for file in weight_files(tmp_path)] == ["pytorch_model.bin"]
    write(tmp_path, model__safetensors="new")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    found = CheckpointFingerprints({"pretrained": str(tmp_path)}, tmp_path / ".kept").result()
    assert found["pretrained"]["weights"] == {"model.safetensors": None}


def test_a_task_is_its_yaml_and_all_that_it_includes(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lmms_eval_stgridpool.kept.fingerprints.digests_folder", lambda: tmp_path / "kept"
    )  # not the user's
    texts = {
        "quiz.yaml": "include: base.yaml\ntask: quiz\nprocess_results: !function functions.process\n",
        "base.yaml": "include:\n- more/_template\ndoc_to_text: !function functions.text\n",
        "other.yaml": "task: other\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    write(tmp_path / "more", _template="output_type: generate_until\n")
    files = task_files(tmp_path / "quiz.yaml")
    assert [file.relative_to(tmp_path).as_posix() for file in files] == ["quiz.yaml", "base.yaml", "more/_template"]
    index = {
        "quiz": {"yaml_path": str(tmp_path / "quiz.yaml")},
        "other": {"yaml_path": str(tmp_path / "other.yaml")},
        "group": {"yaml_path": -1},
    }
    expected = {
        "quiz.yaml": sha256(texts["quiz.yaml"]),
        "base.yaml": sha256(texts["base.yaml"]),
        "more/_template": sha256("output_type: generate_until\n"),
    }
    assert task_fingerprints(["quiz", "group", "unknown"], index) == {"quiz": expected}


@pytest.mark.parametrize(
    ("folder", "name", "indices", "is_same"),
    [
        ("a", "v.mp4", [0, 8], True),
        ("b", "v.mp4", (0, 8), True),  # elsewhere
        ("a", "v.mp4", [0, 9], False),
        ("a", "w.mp4", [0, 8], False),
    ],
)
def test_the_digest_of_frames_depends_on_the_videos_name_and_the_indices(folder, name, indices, is_same):
    same = frames_digest([(Path("a/v.mp4"), [0, 8])]) == frames_digest([(Path(folder) / name, indices)])
    assert same is is_same
