"""The small checkpoint has the names and shapes of a released one, and loads as one."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model
from lmms_eval_stgridpool.kept.paths import MARKER


@pytest.fixture(scope="module")
def maker(load_script):
    return load_script("make_tiny_checkpoint")


@pytest.fixture(scope="module")
def checkpoint(maker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    maker.write_checkpoint(folder, maker.SIZES["tiny"], seed=0)
    return folder


def name_pattern(name):
    return re.sub(r"\d+", "0", name)


def test_weights_have_the_names_of_an_original_checkpoint(checkpoint, golden):
    with (
        safe_open(checkpoint / "model.safetensors", "pt") as ours,
        safe_open(golden / "llava" / "ckpt-video" / "model.safetensors", "pt") as original,
    ):
        assert {name_pattern(name) for name in ours.keys()} == {name_pattern(name) for name in original.keys()}  # noqa: SIM118


def test_config_has_the_keys_of_an_original_checkpoint(checkpoint, golden):
    ours = json.loads((checkpoint / "config.json").read_text())
    original = json.loads((golden / "llava" / "ckpt-video" / "config.json").read_text())
    assert set(original) - set(ours) == {"_name_or_path"}
    assert set(ours) - set(original) == {"faster_token_stride"}
    assert ours["vision_config"].keys() == original["vision_config"].keys()


def test_folder_has_the_files_of_an_original_checkpoint(checkpoint, golden):
    original = {path.name for path in (golden / "llava" / "ckpt-video").iterdir()}
    assert {path.name for path in checkpoint.iterdir()} - {MARKER} == original


def test_layer_counts_and_shapes_follow_from_the_size(maker):
    shapes = maker.weight_shapes(maker.SIZES["small"], vocab_size=448)
    tower = "model.vision_tower.vision_tower.vision_model"
    assert shapes[f"{tower}.embeddings.position_embedding.weight"] == (27 * 27, 32)
    assert f"{tower}.encoder.layers.1.mlp.fc2.bias" in shapes
    assert f"{tower}.encoder.layers.2.mlp.fc2.bias" not in shapes  # of three layers the last is dropped
    assert shapes["model.layers.1.self_attn.k_proj.weight"] == (2 * 16, 64)
    assert "model.layers.2.input_layernorm.weight" not in shapes


def test_the_same_seed_gives_the_same_weights(maker, checkpoint, tmp_path):
    maker.write_checkpoint(tmp_path / "again", maker.SIZES["tiny"], seed=0)
    maker.write_checkpoint(tmp_path / "other", maker.SIZES["tiny"], seed=1)
    first, again, other = (
        load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.image_newline"], other["model.image_newline"])


def test_it_loads_and_answers_with_a_letter_and_stops(checkpoint):
    tokenizer, model, _, context_length = load_pretrained_model(
        str(checkpoint), None, "llava_qwen", device_map="cpu", torch_dtype="float32", attn_implementation="sdpa"
    )
    assert context_length == 32768
    prompt = "<|im_start|>user\nWhich way? A. Left. B. Right.<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    answer = model.generate(ids, do_sample=False, max_new_tokens=8)[0]
    assert len(answer) == 2
    assert tokenizer.decode(answer[:1]) in {"A", "B", "C", "D"}
    assert answer[1] == tokenizer.eos_token_id


def test_a_checkpoint_of_others_is_not_overwritten(maker, tmp_path):
    (tmp_path / "model.safetensors").write_text("trained for weeks")
    with pytest.raises(FileExistsError, match="the checkpoint must be a folder for this purpose alone"):
        maker.write_checkpoint(tmp_path, maker.SIZES["tiny"], seed=0)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.safetensors": "trained for weeks"}
