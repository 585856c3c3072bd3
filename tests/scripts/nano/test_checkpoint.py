"""The shipped checkpoint is one like the released ones."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model
from lmms_eval_stgridpool.kept.paths import MARKER


def test_config_has_only_known_keys(shipped, golden):
    config = json.loads((shipped / "config.json").read_text())
    known = json.loads((golden / "llava" / "ckpt-video" / "config.json").read_text())
    assert set(config) - set(known) == {"faster_token_stride"}  # the released file has it
    assert config["vision_config"].keys() == known["vision_config"].keys()
    assert (config["mm_newline_position"], config["mm_spatial_pool_mode"]) == ("grid", "bilinear")


def test_folder_has_the_files_of_an_original_and_is_small(shipped, golden):
    names = {path.name for path in shipped.iterdir()}
    assert names == {path.name for path in (golden / "llava" / "ckpt-video").iterdir()}
    assert sum(path.stat().st_size for path in shipped.iterdir()) < 6e6


def test_description_is_what_the_trainer_writes(nano, shipped, tmp_path):
    nano("checkpoint").write_description(tmp_path)
    (tmp_path / MARKER).unlink()
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes(), path.name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_ordinary_loader_takes_it(shipped, dtype):
    tokenizer, model, processor, context = load_pretrained_model(
        str(shipped), None, "llava_qwen", device_map="cpu", torch_dtype=dtype
    )
    assert (processor.image_size, context) == (98, 32768)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_weights_are_safe_in_half_precision(shipped):
    weights = load_file(shipped / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert max(float(value.abs().max()) for value in weights.values()) < 100  # far from float16's largest, 65504
