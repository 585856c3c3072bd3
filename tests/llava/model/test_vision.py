"""Which tower a configuration gets, and its geometry."""

import json

import pytest
import torch
from transformers import CLIPVisionConfig

from llava.model.language_model.llava_qwen import LlavaQwenConfig
from llava.model.tower import ClipTower, SiglipTower
from llava.model.vision import build_vision_tower


def build(name, **settings):
    with torch.device("meta"):
        return build_vision_tower(LlavaQwenConfig(mm_vision_tower=name, **settings))


@pytest.mark.parametrize("folder", ["google", "/not/here/checkpoints"])
def test_so400m_comes_from_the_table(folder):
    tower = build(f"{folder}/siglip-so400m-patch14-384")
    assert isinstance(tower, SiglipTower)
    assert (tower.image_size, tower.num_patches_per_side, tower.num_patches, tower.hidden_size) == (384, 27, 729, 1152)
    shapes = {name: tuple(parameter.shape) for name, parameter in tower.named_parameters()}
    assert len(tower.vision_tower.encoder.layers) == 26
    assert shapes["vision_tower.embeddings.position_embedding.weight"] == (729, 1152)
    assert shapes["vision_tower.encoder.layers.25.mlp.fc1.weight"] == (4304, 1152)
    assert not any("head." in name for name in shapes)


def test_clip_large_comes_from_the_table():
    tower = build("openai/clip-vit-large-patch14-336")
    assert isinstance(tower, ClipTower)
    assert (tower.image_size, tower.num_patches_per_side, tower.hidden_size, tower.num_layers_run) == (
        336,
        24,
        1024,
        23,
    )


@pytest.mark.parametrize("name", ["openai/x", "laion/x", "someone/ShareGPT4V-x"])
def test_names_that_mean_clip(name):
    geometry = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 8}
    assert isinstance(build(name, vision_config=geometry), ClipTower)


def test_a_local_folder_is_judged_by_its_config(tmp_path):
    folder = tmp_path / "siglip-in-name-only"
    config = CLIPVisionConfig(hidden_size=24, num_attention_heads=3, num_hidden_layers=2, image_size=28, patch_size=7)
    config.save_pretrained(folder)
    assert isinstance(build(str(folder)), ClipTower)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="is not supported; supported are SigLIP"):
        build(str(folder))


@pytest.mark.parametrize("name", ["imagebind_huge", "facebook/dinov2-large", "hf:x"])
def test_unknown_towers_are_rejected_with_what_is_supported(name):
    with pytest.raises(ValueError, match=r"supported are SigLIP .*CLIP .*OpenCLIP"):
        build(name)


def test_attention_reaches_the_tower():
    config = LlavaQwenConfig(mm_vision_tower="google/siglip-so400m-patch14-384")
    config._attn_implementation = "eager"
    with torch.device("meta"):
        assert build_vision_tower(config).vision_tower.config._attn_implementation == "eager"
