"""Configurations that contradict the weights: setting and tensor are named before a model is built."""

import json
import re
from pathlib import Path

import pytest
import torch

from llava.model.geometry import check_geometry
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from stgridpool.checkpoint_files import StoredTensor

TOWER = "model.vision_tower.vision_tower."
MISMATCHES = [
    ({"vocab_size": 500}, "vocab_size=500", "model.embed_tokens.weight", (500, 64), (448, 64)),
    ({"vocab_size": 100}, "vocab_size=100", "model.embed_tokens.weight", (100, 64), (448, 64)),
    ({"hidden_size": 128}, "hidden_size=128", "model.embed_tokens.weight", (448, 128), (448, 64)),
    ({"intermediate_size": 96}, "intermediate_size=96", "model.layers.0.mlp.gate_proj.weight", (96, 64), (128, 64)),
    ({"num_key_value_heads": 4}, "num_key_value_heads=4", "model.layers.0.self_attn.k_proj.weight", (64, 64), (32, 64)),
    ({"num_key_value_heads": 1}, "num_key_value_heads=1", "model.layers.0.self_attn.k_proj.weight", (16, 64), (32, 64)),
    ({"num_attention_heads": 2}, "num_attention_heads=2", "model.layers.0.self_attn.k_proj.weight", (64, 64), (32, 64)),
    ({"num_attention_heads": 8}, "num_attention_heads=8", "model.layers.0.self_attn.k_proj.weight", (16, 64), (32, 64)),
    ({"head_dim": 8}, "head_dim=8", "model.layers.0.self_attn.q_proj.weight", (32, 64), (64, 64)),
]
VISION_MISMATCHES = [
    ({"hidden_size": 64}, "hidden_size=64", "model.mm_projector.0.weight", (64, 64), (64, 32)),
    ({"patch_size": 7}, "patch_size=7", f"{TOWER}embeddings.patch_embedding.weight", (32, 3, 7, 7), (32, 3, 14, 14)),
    (
        {"num_channels": 1},
        "num_channels=1",
        f"{TOWER}embeddings.patch_embedding.weight",
        (32, 1, 14, 14),
        (32, 3, 14, 14),
    ),
    ({"image_size": 56}, "image_size=56", f"{TOWER}embeddings.position_embedding.weight", (16, 32), (49, 32)),
    ({"intermediate_size": 48}, "intermediate_size=48", f"{TOWER}encoder.layers.0.mlp.fc1.weight", (48, 32), (64, 32)),
]


def vision(llava_golden, **changes):
    return {**json.loads((llava_golden / "ckpt-video" / "config.json").read_text())["vision_config"], **changes}


@pytest.mark.parametrize(("settings", "setting", "tensor", "wanted", "held"), MISMATCHES)
def test_a_shape_names_its_setting(copied, rejection, settings, setting, tensor, wanted, held):
    message = rejection(copied(**settings))
    assert "config.json: " in message
    assert re.search(rf"\b{setting}\b.* contradicts the weights: ", message)
    assert message.endswith(f"{tensor} would be {wanted}, and model.safetensors holds {held}")


@pytest.mark.parametrize(("changes", "setting", "tensor", "wanted", "held"), VISION_MISMATCHES)
def test_a_shape_of_the_tower_names_its_setting(
    copied, rejection, llava_golden, changes, setting, tensor, wanted, held
):
    message = rejection(copied(vision_config=vision(llava_golden, **changes)))
    assert f"vision_config.{setting}" in message
    assert message.endswith(f"{tensor} would be {wanted}, and model.safetensors holds {held}")


def test_the_setting_that_was_overwritten_is_named(llava_golden, rejection):
    message = rejection(llava_golden / "ckpt-video", overwrite_config={"intermediate_size": 96})
    assert "config.json with overwrite_config: intermediate_size=96 contradicts the weights" in message


@pytest.mark.parametrize("count", [1, 3, 10**9])
def test_another_number_of_layers(copied, rejection, count):
    message = f"num_hidden_layers={count} contradicts the weights, which hold model.layers.0 to model.layers.1"
    assert f"{message}: it must be 2" in rejection(copied(num_hidden_layers=count))


@pytest.mark.parametrize("count", [2, 5, 1000])
def test_another_number_of_tower_layers(copied, rejection, llava_golden, count):
    message = rejection(copied(vision_config=vision(llava_golden, num_hidden_layers=count)))
    assert f"vision_config.num_hidden_layers={count} contradicts the weights, which hold 2 layers of {TOWER}" in message
    assert message.endswith("it must be 3")  # SigLIP's last layer is not used, and not stored


@pytest.mark.parametrize(
    ("kind", "count"), [("linear", 1), ("mlp1x_gelu", 1), ("mlp3x_gelu", 3), ("mlp9999999x_gelu", 9999999)]
)
def test_another_projector(copied, rejection, kind, count):
    message = f"mm_projector_type={kind} contradicts the weights, which hold 2 linear layers of model.mm_projector and"
    assert f"{message} would be {count}" in rejection(copied(mm_projector_type=kind))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads=3 must divide hidden_size=64"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=4"),
        ({"num_attention_heads": 64, "num_key_value_heads": 32}, "num_attention_heads=64 gives heads of 1 numbers"),
    ],
)
def test_heads_that_do_not_fit(copied, rejection, settings, message):
    assert message in rejection(copied(**settings))


def test_tower_heads_that_do_not_fit(copied, rejection, llava_golden):
    message = rejection(copied(vision_config=vision(llava_golden, num_attention_heads=3)))
    assert "vision_config: num_attention_heads=3 must divide hidden_size=32" in message


def test_an_output_layer_that_should_be_the_embeddings(copied, rejection):
    message = rejection(copied(tie_word_embeddings=True))
    assert (
        "tie_word_embeddings=true contradicts the weights: lm_head.weight in model.safetensors differs from" in message
    )


def test_an_output_layer_that_is_lacking(copied, rejection):
    message = rejection(copied("ckpt-ov", tie_word_embeddings=False))
    assert "lacks weights (1): lm_head.weight (with tie_word_embeddings=true there would be none)" in message


def test_a_newline_that_is_not_used(copied, rejection):
    message = rejection(copied(mm_patch_merge_type="flat"))
    assert "unknown weights (1): model.image_newline (mm_patch_merge_type says whether there is one)" in message


def test_weights_that_are_integers(copied, rejection):
    def to_integers(weights):
        return weights | {"model.norm.weight": weights["model.norm.weight"].int()}

    folder = copied(weights=to_integers)
    assert rejection(folder) == (
        f"{folder / 'model.safetensors'}: model.norm.weight must hold floating-point numbers, got I32"
    )


RELEASED = {  # from the table in the checkpoints' model cards: width, inner width, layers, heads, groups, rows, tied
    "LLaVA-Video-7B": (3584, 18944, 28, 28, 4, 152064, False),
    "LLaVA-Video-72B": (8192, 29568, 80, 64, 8, 152064, False),
    "LLaVA-OneVision-0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "LLaVA-OneVision-0.5B, cut": (896, 4864, 24, 14, 2, 151647, True),
}


def released_config(name, **changes):
    width, inner, layers, heads, groups, rows, is_tied = RELEASED[name]
    return LlavaQwenConfig(
        **{
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "vocab_size": rows,
            "tie_word_embeddings": is_tied,
            "mm_vision_tower": "google/siglip-so400m-patch14-384",
            "mm_hidden_size": 1152,
            "mm_projector_type": "mlp2x_gelu",
            "mm_patch_merge_type": "spatial_unpad",
            "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
            **changes,
        }
    )


def released_tensors(name):
    """What the checkpoint holds, as transformers' own modules shape it; under the original names."""
    with torch.device("meta"):
        weights = LlavaQwenForCausalLM(released_config(name)).state_dict()
    if RELEASED[name][-1]:
        del weights["lm_head.weight"]
    nested = {key.replace(TOWER, f"{TOWER}vision_model."): value for key, value in weights.items()}
    return {key: StoredTensor(Path("m.safetensors"), tuple(value.shape), "BF16", key) for key, value in nested.items()}


@pytest.mark.parametrize("name", RELEASED)
def test_released_geometries_pass(name):
    check_geometry(released_config(name), released_tensors(name), "config.json")


def test_heads_of_published_sizes_are_known():
    """Twice the heads give the same shapes: only the published numbers tell."""
    tensors = released_tensors("LLaVA-OneVision-0.5B")
    with pytest.raises(
        ValueError, match="num_attention_heads=28, num_key_value_heads=4, but the Qwen2 of hidden_size=896 has 14"
    ):
        check_geometry(
            released_config("LLaVA-OneVision-0.5B", num_attention_heads=28, num_key_value_heads=4),
            tensors,
            "config.json",
        )
    siglip = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 8,
        "image_size": 384,
        "patch_size": 14,
    }
    with pytest.raises(ValueError, match="tower's num_attention_heads=8, but google/siglip-so400m-patch14-384 has 16"):
        check_geometry(released_config("LLaVA-OneVision-0.5B", vision_config=siglip), tensors, "config.json")


def test_a_checkpoint_that_is_stored_quantised_is_not_compared():
    config = released_config("LLaVA-OneVision-0.5B", quantization_config={"quant_method": "bitsandbytes"})
    check_geometry(
        config,
        {"model.norm.weight": StoredTensor(Path("m.safetensors"), (3,), "U8", "model.norm.weight")},
        "config.json",
    )
