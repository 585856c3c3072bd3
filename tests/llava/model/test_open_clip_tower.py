"""OpenCLIP towers of tiny registered models: features, and weights in the checkpoint, in a file and in a folder."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model

TEXT = {"context_length": 8, "vocab_size": 32, "width": 8, "heads": 2, "layers": 1}
VIT = {"image_size": 28, "layers": 3, "width": 24, "head_width": 8, "patch_size": 7}
PIXELS = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def _open_clip(without_wandb):
    """Import what takes long only in the process that runs these tests."""
    global open_clip, OpenClipTower  # noqa: PLW0603
    import open_clip

    from llava.model.open_clip_tower import OpenClipTower


@pytest.fixture(scope="module", autouse=True)
def _models(_open_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip")
    trunk = {"timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    models = {
        "tiny-vit": VIT,
        "tiny-conv": {**trunk, "timm_model_name": "test_convnext", "timm_pool": "avg"},
        "tiny-timm": {**trunk, "timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"},
    }
    for name, vision in models.items():
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def settings(name="tiny-vit", **more):
    return {"mm_vision_tower": f"open_clip_hub:{name}", "mm_hidden_size": 24, "image_aspect_ratio": "pad", **more}


def load(folder):
    return load_pretrained_model(str(folder), None, "x", torch_dtype="float32", attn_implementation="sdpa")


def real_vit(seed):
    torch.manual_seed(seed)
    return open_clip.create_model("tiny-vit").eval()


def block_outputs(visual, pixels):
    """Outputs of every residual block, class token first, by hooks on the real model."""
    outputs = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        for block in visual.transformer.resblocks
    ]
    with torch.no_grad():
        visual(pixels)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("layer", [-1, -2, -3])
@pytest.mark.parametrize(("feature", "first"), [("patch", 1), ("cls_patch", 0)])
def test_features_are_a_blocks_output(layer, feature, first):
    tower = OpenClipTower("open_clip_hub:tiny-vit", None, layer, feature)
    visual = real_vit(3).visual
    tower.vision_tower = visual
    with torch.no_grad():
        actual = tower(PIXELS)
    torch.testing.assert_close(actual, block_outputs(visual, PIXELS)[layer][:, first:])


def test_geometry_and_preprocessing_come_from_the_model():
    tower = OpenClipTower("open_clip_hub:tiny-vit", None, -2, "patch")
    assert (tower.image_size, tower.num_patches_per_side, tower.hidden_size) == (28, 4, 24)
    assert tower.image_processor.keep_aspect
    assert tower.image_processor.image_mean == open_clip.OPENAI_DATASET_MEAN


def test_the_processor_of_a_tag_has_the_tags_mean():
    with torch.device("meta"):
        tower = OpenClipTower("open_clip_hub:ViT-B-16-SigLIP", "webli", -2, "patch")
    assert tower.image_processor.image_mean == (0.5, 0.5, 0.5)
    assert (tower.num_patches_per_side, tower.hidden_size) == (14, 768)


def test_weights_in_the_checkpoint(make_checkpoint):
    folder, written = make_checkpoint(**settings())
    keys = load_file(folder / "model.safetensors").keys()
    assert "model.vision_tower.vision_tower.transformer.resblocks.0.ln_1.weight" in keys
    model = load(folder)[1]
    with torch.no_grad():
        torch.testing.assert_close(model.get_vision_tower()(PIXELS), written.get_vision_tower()(PIXELS))
        ids = torch.tensor([[5, -200, 6]])
        answer = model.generate(ids, images=[PIXELS], modalities=["video"], do_sample=False, max_new_tokens=2)
    assert answer.shape == (1, 2)


@pytest.mark.parametrize("source", ["file", "folder"])
def test_weights_of_the_named_tower(make_checkpoint, tmp_path, source):
    real = real_vit(9)
    home = tmp_path / "real"
    home.mkdir()
    torch.save(real.state_dict(), home / "open_clip_pytorch_model.bin")
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (home / "open_clip_config.json").write_text(json.dumps(config))
    named = (
        settings(vision_tower_pretrained=str(home / "open_clip_pytorch_model.bin"))
        if source == "file"
        else settings(f"local-dir:{home}")
    )
    folder, _ = make_checkpoint(without="model.vision_tower", mm_tunable_parts="mm_mlp_adapter", **named)
    tower = load(folder)[1].get_vision_tower()
    with torch.no_grad():
        torch.testing.assert_close(tower(PIXELS), block_outputs(real.visual, PIXELS)[-2][:, 1:])


def test_random_weights_are_never_taken_for_the_named_ones(make_checkpoint):
    folder, _ = make_checkpoint(without="model.vision_tower", mm_tunable_parts=None, **settings())
    with pytest.raises(ValueError, match="name them in vision_tower_pretrained"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "feature", "tokens"), [("tiny-conv", "conv_flatten", 16), ("tiny-timm", "patch", 100)]
)
def test_timm_trunks(name, feature, tokens):
    tower = OpenClipTower(f"open_clip_hub:{name}", None, -2, feature)
    tower.vision_tower = open_clip.create_model(name).visual.eval()
    side = tower.image_size
    with torch.no_grad():
        features = tower(torch.rand(2, 3, side, side))
        trunk = tower.vision_tower.trunk
        expected = trunk.forward_intermediates(torch.zeros(1, 3, side, side), intermediates_only=True)[-2]
    assert features.shape == (2, expected.shape[2] * expected.shape[3], expected.shape[1])
    assert features.shape[1] == tokens


def test_rejected_selections():
    with pytest.raises(ValueError, match="must be negative"):
        OpenClipTower("open_clip_hub:tiny-vit", None, 1, "patch")
    with pytest.raises(ValueError, match="mm_vision_select_feature must be one of"):
        OpenClipTower("open_clip_hub:tiny-vit", None, -2, "cls")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-dir:/nowhere", "'open_clip_hub:local-dir:/nowhere' of config.json names a folder that is not there"),
        ("tiny-vat", "open_clip has no model 'tiny-vat', did you mean 'tiny-vit'"),
    ],
)
def test_a_name_that_means_nothing(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        OpenClipTower(f"open_clip_hub:{name}", None, -2, "patch")
