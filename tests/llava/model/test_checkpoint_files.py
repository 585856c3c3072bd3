"""Damaged, missing and foreign files: each is named, with the repair, before a model is built."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.builder import load_pretrained_model
from stgridpool import checkpoint_files
from stgridpool.checkpoint_files import checkpoint_folder, local_folder, stored_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb\nsize 12345\n"
SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


def cut(path, num_bytes=100):
    path.write_bytes(path.read_bytes()[:-num_bytes])


def change_index(folder, change):
    content = json.loads((folder / INDEX).read_text())
    change(content)
    (folder / INDEX).write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_path_is_an_error(name, rejection):
    assert "the checkpoint's path is empty: pass a folder" in rejection(name)


def test_paths_that_are_no_checkpoint(tmp_path, rejection):
    (tmp_path / "file").write_text("x")
    assert "is a file: pass the folder" in rejection(tmp_path / "file")
    assert f"{tmp_path / 'nothing'} does not exist: pass the folder" in rejection(tmp_path / "nothing")
    assert f"{tmp_path} holds no config.json" in rejection(tmp_path)


def test_a_checkpoint_on_the_hub_is_downloaded_first(llava_golden, monkeypatch, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--owner--name" / "snapshots" / commit
    shutil.copytree(llava_golden / "ckpt-ov", snapshot)
    asked = []
    monkeypatch.setattr(checkpoint_files, "snapshot_download", lambda name, **_: asked.append(name) or str(snapshot))
    _, model, _, _ = load_pretrained_model("owner/name", None, "x", torch_dtype="auto", attn_implementation="sdpa")
    assert asked == ["owner/name"]
    assert model.config._commit_hash == commit
    weights = load_file(llava_golden / "ckpt-ov" / "model-00001-of-00003.safetensors")
    torch.testing.assert_close(model.model.image_newline.data, weights["model.image_newline"], rtol=0, atol=0)


def test_a_checkpoint_is_on_this_disk_if_all_files_are_that_would_be_downloaded(monkeypatch):
    """README.md and other files that nobody downloads are not missed."""
    asked = []
    monkeypatch.setattr(checkpoint_files, "snapshot_download", lambda _, **options: asked.append(options) or "folder")
    checkpoint_folder("owner/name")
    local_folder("owner/name")
    assert asked[1] == asked[0] | {"local_files_only": True}


def test_what_the_hub_says_becomes_one_line(monkeypatch):
    def download(name, **_):
        raise FileNotFoundError("401 Client Error.\n\nRepository Not Found for url.")

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    message = "owner/name is not a folder here, and the hub does not provide it: 401 Client Error. Repository Not Found"
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoint_folder("owner/name")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ckpt-video", "model.safetensors"),
        ("ckpt-ov", SHARD),
        ("ckpt-ov", INDEX),
        ("ckpt-ov", "config.json"),
        ("ckpt-ov", "generation_config.json"),
        ("ckpt-ov", "tokenizer.json"),
    ],
)
def test_a_pointer_in_place_of_a_file(copied, rejection, name, file):
    folder = copied(name)
    (folder / file).write_bytes(POINTER)
    assert f"{folder / file} is a Git LFS pointer, not the file: run `git lfs pull` in {folder}" in rejection(folder)


@pytest.mark.parametrize(("name", "file"), [("ckpt-video", "model.safetensors"), ("ckpt-ov", SHARD)])
@pytest.mark.parametrize(
    "damage", [cut, lambda path: path.write_bytes(b""), lambda path: path.write_text("<html>" * 9)]
)
def test_a_cut_or_damaged_weight_file(copied, rejection, name, file, damage):
    folder = copied(name)
    damage(folder / file)
    message = rejection(folder)
    assert message.startswith(f"{folder / file} is cut off or damaged ({(folder / file).stat().st_size} bytes; ")
    assert message.endswith("copy or download it again")


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json", INDEX])
def test_a_cut_json_file(copied, rejection, file):
    folder = copied("ckpt-ov")
    cut(folder / file, 7)
    assert f"{folder / file} is not valid JSON (" in rejection(folder)
    (folder / file).write_text("[1]")
    assert f"{folder / file} must hold a JSON object, got a list" in rejection(folder)


def test_a_missing_shard(copied, rejection):
    folder = copied("ckpt-ov")
    (folder / SHARD).unlink()
    assert f"{folder} lacks {SHARD}, which {INDEX} lists: copy or download it again" in rejection(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.pop("weight_map"), "weight_map must be an object that gives each tensor"),
        (lambda index: index.update(weight_map={}), "weight_map must be an object that gives each tensor"),
        (lambda index: index.update(weight_map=[1]), "weight_map must be an object that gives each tensor"),
        (lambda index: index["weight_map"].update(a=3), "weight_map must be an object that gives each tensor"),
        (lambda index: index.pop("metadata"), "metadata must be an object"),
        (
            lambda index: index["weight_map"].update(a=SHARD),
            f"lists 1 tensors that no weight file holds, such as a in {SHARD}",
        ),
    ],
)
def test_a_damaged_index(copied, rejection, change, message):
    folder = copied("ckpt-ov")
    change_index(folder, change)
    assert re.match(re.escape(str(folder / INDEX)) + ":? " + re.escape(message), rejection(folder))


@pytest.mark.parametrize(
    "entry",
    ["../outside.safetensors", "{root}/outside.safetensors", "a/../../outside.safetensors", "pytorch_model.bin"],
)
def test_an_index_that_leaves_the_folder(copied, rejection, tmp_path, entry):
    folder = copied("ckpt-ov")
    shutil.move(folder / SHARD, tmp_path / "outside.safetensors")
    entry = entry.format(root=tmp_path)
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    change_index(
        folder,
        lambda index: index.update(weight_map={key: entry if file == SHARD else file for key, file in places.items()}),
    )
    first = next(key for key, file in places.items() if file == SHARD)
    message = f"{folder / INDEX}: weight_map gives {first} the file {entry!r}; it must be a .safetensors file in"
    assert message in rejection(folder)


def test_a_shard_that_is_a_link_is_read(copied, tmp_path):
    folder = copied("ckpt-ov")
    shutil.move(folder / SHARD, tmp_path / "blob")  # as in the hub's cache
    (folder / SHARD).symlink_to(tmp_path / "blob")
    assert "model.norm.weight" in stored_tensors(folder)


def test_a_tensor_that_is_stored_twice(copied, rejection):
    folder = copied("ckpt-ov")
    other = folder / "model-00001-of-00003.safetensors"
    save_file(load_file(other) | {"model.norm.weight": torch.zeros(64, dtype=torch.bfloat16)}, other)
    assert f"model.norm.weight is stored twice: in {other} and in {folder / SHARD}" in rejection(folder)


def test_pickles_are_not_read(copied, rejection):
    """What v0.1 loaded, with weights only: a pickle is refused, and the message says how to convert it."""
    folder = copied()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert rejection(folder) == (
        f"{folder} holds no weights: neither model.safetensors nor model.safetensors.index.json with its files"
    )
    torch.save(weights, folder / "pytorch_model.bin")
    assert ".bin files are pickles and are not read: convert each with safetensors.torch.save_file(" in rejection(
        folder
    )
