"""Loading of native checkpoints: what contradicts their weights is refused, whatever transformers would make of it."""

import json
import math
import shutil

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForImageTextToText, AutoProcessor

from native_models.families import save
from stgridpool import checkpoint_files
from stgridpool.adapters.native_loading import load_native

pytestmark = pytest.mark.adapters


@pytest.fixture(scope="module", params=["llava_onevision", "qwen2_5_vl"])
def checkpoint(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def load_with(checkpoint, tmp_path):
    """Function that loads the checkpoint with a changed setting, if it has that."""

    def load(value, *names):
        settings = json.loads((checkpoint / "config.json").read_text())
        place = settings
        for name in names[:-1]:
            place = place[name]
        if names[-1] not in place:
            pytest.skip(f"{checkpoint.name} has no {names[-1]}")
        place[names[-1]] = value
        for file in checkpoint.iterdir():
            (tmp_path / file.name).symlink_to(file)
        (tmp_path / "config.json").unlink()
        (tmp_path / "config.json").write_text(json.dumps(settings))
        return load_native(str(tmp_path), device_map="cpu", dtype=torch.float32, attn_implementation=None)

    return load


CONTRADICTIONS = [
    (
        ("vision_config", "num_hidden_layers"),
        1,
        r"has 1 layers in model\.vision_tower\S+: model\.safetensors also holds \S+layers\.1\.",
    ),
    (
        ("vision_config", "depth"),
        1,
        r"has 1 layers in model\.visual\.blocks: model\.safetensors also holds \S+\.blocks\.1\.",
    ),
    (
        ("text_config", "intermediate_size"),
        48,
        r"mlp\.down_proj\.weight would be \(64, 48\), and model\.safetensors holds \(64, ",
    ),
    (
        ("text_config", "num_attention_heads"),
        6,
        r"(self_attn\.\S+ would be \S+ and model\.safetensors holds|divisible by num_heads|mrope_section must be)",
    ),
    (("vision_config", "patch_size"), 3, r"patch_embed\S+weight would be \S+ \S+ .* and model\.safetensors holds"),
    (("vision_config", "patch_size"), 0, r"config\.json: vision_config\.patch_size must be an integer of at least 1"),
    (("text_config", "hidden_act"), "foo", r"config\.json: text_config\.hidden_act must be an activation .* got 'foo'"),
    (("text_config", "num_hidden_layers"), 1, r"no model can be built from .*num_hidden_layers"),
    (
        ("text_config", "rms_norm_eps"),
        math.nan,
        r"config\.json: text_config\.rms_norm_eps must be a finite number, got nan",
    ),
    (
        ("vision_feature_layer",),
        -99,
        r"vision_feature_layer must be from -4 to 3, as the vision tower has 3 layers, got -99",
    ),
]


@pytest.mark.parametrize(("names", "value", "message"), CONTRADICTIONS, ids=lambda one: str(one)[:40])
def test_a_configuration_that_contradicts_the_weights_is_refused(load_with, monkeypatch, names, value, message):
    """No weight is read before that: transformers does not come to load the folder."""
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", None)
    with pytest.raises(ValueError, match=message):
        load_with(value, *names)


def test_a_model_of_no_family_is_refused_before_its_weights_are_read(load_with, monkeypatch):
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", None)
    with pytest.raises(ValueError, match=r"\(model_type 'mllama'\) is not supported; supported are glm4v, .*qwen2_vl"):
        load_with("mllama", "model_type")


def test_lora_weights_are_refused(checkpoint, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds LoRA weights"):
        load_native(str(tmp_path), device_map="cpu", dtype=torch.float32, attn_implementation=None)


def test_a_processor_that_contradicts_the_model_is_refused_before_weights_are_read(checkpoint, tmp_path, monkeypatch):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["video_processor"]["rescale_factor"] = 0
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", None)
    with pytest.raises(ValueError, match="rescale_factor must be a number above 0, got 0"):
        load_native(str(tmp_path), device_map="cpu", dtype=torch.float32, attn_implementation=None)


def test_a_checkpoint_of_the_hub_is_read_from_what_was_downloaded_of_it(tmp_path, monkeypatch):
    """All of one revision, and without asking the hub again for each file."""
    source, cache = save("qwen2_5_vl", tmp_path / "hub"), tmp_path / "models--owner--name" / "snapshots" / ("a1" * 20)
    cache.mkdir(parents=True)

    def download(name, *, allow_patterns):
        for file in filter_repo_objects([path.name for path in source.iterdir()], allow_patterns=allow_patterns):
            shutil.copy(source / file, cache / file)
        return str(cache)

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    model, processor = load_native("owner/name", device_map="cpu", dtype=torch.float32, attn_implementation=None)
    assert model.config._name_or_path == str(cache)
    assert model.config._commit_hash == "a1" * 20  # by which records and journals know the version
    assert processor.chat_template == AutoProcessor.from_pretrained(source).chat_template
