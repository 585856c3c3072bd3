"""CLIP and SigLIP towers against transformers' own models, with weights from the checkpoint or from a local folder."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llava.model.builder import load_pretrained_model
from llava.model.tower import ClipTower, SiglipTower

CLIP = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
    "projection_dim": 16,
}
PIXELS = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def load(folder, **options):
    return load_pretrained_model(str(folder), None, "x", torch_dtype="float32", attn_implementation="sdpa", **options)


def tower_of(folder):
    return load(folder)[1].get_vision_tower()


@pytest.mark.parametrize(("select_layer", "hidden"), [(-2, 3), (-1, 4), (2, 2), (0, 0)])
@pytest.mark.parametrize(("feature", "first"), [("patch", 1), ("cls_patch", 0)])
def test_clip_features_are_the_selected_hidden_state(select_layer, hidden, feature, first):
    tower = ClipTower("openai/tiny", CLIPVisionConfig(**CLIP), select_layer, feature).eval()
    with torch.no_grad():
        expected = tower.vision_tower(PIXELS, output_hidden_states=True).hidden_states[hidden][:, first:]
        torch.testing.assert_close(tower(PIXELS), expected)


def test_clip_rejects_other_selections():
    with pytest.raises(ValueError, match="must be a layer of the 4"):
        ClipTower("openai/tiny", CLIPVisionConfig(**CLIP), -6, "patch")
    with pytest.raises(ValueError, match="must be one of patch, cls_patch, got 'slicefour_patch'"):
        ClipTower("openai/tiny", CLIPVisionConfig(**CLIP), -2, "slicefour_patch")


def clip_settings(name):
    return {
        "mm_vision_tower": name,
        "vision_config": {**CLIP, "model_type": "clip_vision_model"},
        "mm_hidden_size": 24,
        "image_aspect_ratio": "pad",
    }


def test_clip_weights_in_the_checkpoint(make_checkpoint):
    folder, written = make_checkpoint(**clip_settings("openai/tiny-clip"))
    keys = load_file(folder / "model.safetensors").keys()
    assert "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding" in keys
    _, model, processor, _ = load(folder)
    tower = model.get_vision_tower()
    assert (tower.num_patches_per_side, tower.num_patches, tower.image_size, tower.hidden_size) == (4, 16, 28, 24)
    assert processor.size == {"shortest_edge": 28}
    with torch.no_grad():
        torch.testing.assert_close(tower(PIXELS), written.get_vision_tower()(PIXELS))
        ids = torch.tensor([[5, -200, 6]])
        answer = model.generate(ids, images=[PIXELS], modalities=["video"], do_sample=False, max_new_tokens=2)
    assert answer.shape == (1, 2)


def test_clip_weights_of_a_local_folder(make_checkpoint, tmp_path):
    torch.manual_seed(5)
    named = CLIPVisionModel(CLIPVisionConfig(**CLIP)).eval()
    named.save_pretrained(tmp_path / "clip")
    settings = {**clip_settings(str(tmp_path / "clip")), "mm_tunable_parts": "mm_mlp_adapter", "vision_config": None}
    folder, _ = make_checkpoint(without="model.vision_tower", **settings)
    tower = tower_of(folder)
    with torch.no_grad():
        expected = named(PIXELS, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(tower(PIXELS), expected)


def test_siglip_weights_of_a_local_folder_of_the_whole_model(make_checkpoint, tmp_path):
    torch.manual_seed(5)
    vision = {**CLIP, "num_attention_heads": 2}
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    named = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
    named.save_pretrained(tmp_path / "encoder")
    assert json.loads((tmp_path / "encoder" / "config.json").read_text())["model_type"] == "siglip"
    folder, _ = make_checkpoint(
        without="model.vision_tower",
        mm_vision_tower=str(tmp_path / "encoder"),
        mm_hidden_size=24,
        mm_tunable_parts="mm_mlp_adapter",
    )
    tower = tower_of(folder)
    assert isinstance(tower, SiglipTower)
    with torch.no_grad():
        expected = named.vision_model(PIXELS, output_hidden_states=True).hidden_states[3]
        torch.testing.assert_close(tower(PIXELS), expected)


def test_trained_tower_weights_must_be_in_the_checkpoint(make_checkpoint):
    folder, _ = make_checkpoint(without="model.vision_tower", **clip_settings("openai/tiny-clip"))
    with pytest.raises(ValueError, match=r"the checkpoint lacks weights .*model\.vision_tower"):
        load(folder)


def test_a_named_tower_that_lacks_weights_is_rejected(make_checkpoint, tmp_path):
    CLIPVisionModel(CLIPVisionConfig(**{**CLIP, "num_hidden_layers": 2})).save_pretrained(tmp_path / "clip")
    settings = {**clip_settings(str(tmp_path / "clip")), "mm_tunable_parts": None}
    folder, _ = make_checkpoint(without="model.vision_tower", **settings)
    with pytest.raises(ValueError, match="lacks weights of the vision tower"):
        load(folder)


def test_a_tower_computes_in_its_own_dtype():
    tower = SiglipTower("siglip", SiglipVisionConfig(**{**CLIP, "num_attention_heads": 2})).to(torch.bfloat16)
    with torch.no_grad():
        assert tower(PIXELS).dtype == torch.bfloat16
    assert tower.is_loaded
    tower.load_model(device_map="auto")


SIGLIP = {**CLIP, "num_attention_heads": 2, "vision_use_head": False}


@pytest.fixture
def checkpoint_of(make_checkpoint, tmp_path):
    """A checkpoint that leaves the weights of its tower to the folder of a SigLIP model; both folders."""
    tower = tmp_path / "siglip"
    config = {key: value for key, value in SIGLIP.items() if key != "projection_dim"}
    SiglipVisionModel(SiglipVisionConfig(**config)).save_pretrained(tower)
    folder, _ = make_checkpoint(
        without="model.vision_tower", mm_vision_tower=str(tower), mm_hidden_size=24, mm_tunable_parts=None
    )
    return folder, tower


@pytest.mark.parametrize(
    "name", ["{root}/gone/siglip-tower", "{root}/gone/tower", "{root}/gone/siglip-so400m-patch14-384"]
)
def test_a_missing_tower_folder_is_named(copied, rejection, tmp_path, name):
    """Also where its last part says which tower it was: the weights are in it."""
    name = name.format(root=tmp_path)

    def without_tower(weights):
        return {key: value for key, value in weights.items() if not key.startswith("model.vision_tower")}

    settings = {"mm_vision_tower": name, "vision_config": None, "mm_tunable_parts": None, "mm_hidden_size": None}
    folder = copied(weights=without_tower, **settings)
    message = f"mm_vision_tower={name!r} of config.json names a folder that is not there: put the tower into it"
    assert message in rejection(folder)


def test_a_tower_folder_without_configuration(checkpoint_of, rejection):
    folder, tower = checkpoint_of
    (tower / "config.json").unlink()
    assert f"{tower} holds no config.json" in rejection(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "model.safetensors is cut off or damaged ("),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer"),
        (lambda path: path.unlink(), "holds no weights: neither model.safetensors nor"),
    ],
)
def test_damaged_weights_of_a_named_tower(checkpoint_of, rejection, damage, message):
    folder, tower = checkpoint_of
    damage(tower / "model.safetensors")
    text = rejection(folder)
    assert str(tower) in text
    assert message in text


def test_a_named_tower_that_contradicts_its_configuration(checkpoint_of):
    folder, tower = checkpoint_of
    config = json.loads((tower / "config.json").read_text())
    (tower / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    message = rf"weights of {tower} contradict its configuration: .*fc1.* would be \(48.*, and the file holds \(32"
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_named_tower_may_be_a_pickle_of_weights(checkpoint_of, tmp_path):
    """OpenAI's CLIP is published as nothing else. Only weights are read, so that no code in it runs."""
    folder, tower = checkpoint_of
    weights = load_file(tower / "model.safetensors")
    (tower / "model.safetensors").unlink()
    torch.save(weights, tower / "pytorch_model.bin")
    loaded = tower_of(folder).vision_tower.embeddings.position_embedding.weight
    torch.testing.assert_close(loaded.data, weights["embeddings.position_embedding.weight"])

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({**weights, "code": Code()}, tower / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"the weights of mm_vision_tower={str(tower)!r} cannot be read: Weights only"):
        load(folder)
    assert not (tmp_path / "ran").exists()
    (tower / "pytorch_model.bin").rename(tmp_path / "outside.bin")
    (tower / "decoy.bin").touch()
    (tower / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds LoRA weights of a vision tower"):
        load(folder)
    (tower / "adapter_config.json").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../outside.bin")}
    (tower / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"the file '\.\./outside\.bin'; it must be a \.bin file in the checkpoint's"):
        load(folder)
