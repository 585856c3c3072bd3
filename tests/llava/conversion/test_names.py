"""Names in both formats: those of released checkpoints, and those that transformers' own classes have."""

import pytest

from llava.conversion.names import native_name, original_name

PAIRS = [
    ("lm_head.weight", "language_model.lm_head.weight"),
    ("model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
    ("model.norm.weight", "language_model.model.norm.weight"),
    ("model.layers.11.mlp.up_proj.weight", "language_model.model.layers.11.mlp.up_proj.weight"),
    ("model.image_newline", "image_newline"),
    ("model.mm_projector.0.bias", "multi_modal_projector.linear_1.bias"),
    ("model.mm_projector.2.weight", "multi_modal_projector.linear_2.weight"),
    (
        "model.vision_tower.vision_tower.vision_model.encoder.layers.3.mlp.fc1.bias",
        "vision_tower.vision_model.encoder.layers.3.mlp.fc1.bias",
    ),
    ("model.vision_tower.vision_tower.post_layernorm.bias", "vision_tower.post_layernorm.bias"),
]


@pytest.mark.parametrize(("original", "native"), PAIRS)
def test_there_and_back(original, native):
    assert native_name(original) == native
    assert original_name(native) == original


@pytest.mark.parametrize(
    ("native", "original"),
    [
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.image_newline", "model.image_newline"),
        ("model.multi_modal_projector.linear_1.weight", "model.mm_projector.0.weight"),
        ("model.vision_tower.post_layernorm.bias", "model.vision_tower.vision_tower.post_layernorm.bias"),
    ],
)
def test_names_of_the_class_are_read(native, original):
    assert original_name(native) == original


@pytest.mark.parametrize(
    "name",
    [
        "model.faster_token",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.vision_tower.vision_tower.vision_model.head.probe",
        "model.vision_tower.vision_tower.vision_model.embeddings.position_ids",
        "model.vision_resampler.weight",
    ],
)
def test_weights_that_the_native_class_lacks(name):
    assert native_name(name) is None
