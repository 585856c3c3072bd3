"""Settings that nothing can be made of are refused by name, with what they may be."""

import json

import pytest

from llava.model.builder import load_pretrained_model
from llava.model.settings import make_config, read_settings

COUNT = "an integer of at least 1"
NUMBER = "a number above 0"
CASES = [
    *[({name: value}, f"{name} must be {COUNT}, got {value!r}") for name, value in [
        ("num_hidden_layers", 0), ("num_hidden_layers", -1), ("num_hidden_layers", 2.0), ("num_hidden_layers", True),
        ("num_attention_heads", 0), ("num_attention_heads", -4), ("num_attention_heads", "4"),
        ("num_key_value_heads", 0), ("hidden_size", 0), ("intermediate_size", -1), ("vocab_size", 0), ("head_dim", 0),
        ("max_position_embeddings", 0), ("tokenizer_model_max_length", -1), ("mm_hidden_size", "32"),
        ("mm_spatial_pool_stride", 0), ("mm_spatial_pool_stride", -2), ("mm_spatial_pool_stride", 1.5),
    ]],
    ({"mm_spatial_pool_mode": "median"}, "mm_spatial_pool_mode must be one of average, max, bilinear, got 'median'"),
    ({"mm_newline_position": "row"}, "mm_newline_position must be one of grid, frame, one_token, no_token, got 'row'"),
    ({"mm_patch_merge_type": "square"}, "mm_patch_merge_type must be 'flat' or begin with 'spatial', got 'square'"),
    ({"mm_projector_type": "mlp0x_gelu"}, "mm_projector_type must be linear, identity, mlp_downsample, "),
    ({"tokenizer_padding_side": "top"}, "tokenizer_padding_side must be one of left, right, got 'top'"),
    ({"hidden_act": "foo"}, "hidden_act must be an activation that transformers knows, such as silu, got 'foo'"),
    ({"rms_norm_eps": -1e-6}, f"rms_norm_eps must be {NUMBER}, got -1e-06"),
    ({"rms_norm_eps": float("nan")}, f"rms_norm_eps must be {NUMBER}, got nan"),
    ({"rope_theta": 0}, f"rope_theta must be {NUMBER}, got 0"),
    ({"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false, got 'false'"),
    ({"mm_use_im_start_end": "false"}, "mm_use_im_start_end must be true or false, got 'false'"),
    ({"torch_dtype": "banana"}, "torch_dtype must be one of float16, bfloat16, float32, float64, got 'banana'"),
    ({"transformers_weights": "../x.safetensors"}, "transformers_weights must be left out"),
    ({"vision_config": [1]}, "vision_config must be an object, got [1]"),
    ({"mm_vision_tower": 5}, "mm_vision_tower must be a name, got 5"),
    ({"layer_types": "full"}, "Validation error for field 'layer_types'"),
]  # fmt: skip
ROPE = [
    ({"type": "foo", "factor": 2.0}, "the rope_type of rope_scaling must be one of default, linear, dynamic, yarn,"),
    ({"rope_type": "mrope"}, "got 'mrope'; released checkpoints have rope_scaling null"),
    ({"type": "linear"}, "rope_scaling of rope_type 'linear' needs factor, got"),
    ({"type": "linear", "factor": 0}, "factor of rope_scaling must be a number above 0, got 0"),
    ({"type": "yarn", "factor": "4"}, "factor of rope_scaling must be a number above 0, got '4'"),
    ({"type": "longrope"}, "rope_scaling of rope_type 'longrope' needs short_factor, long_factor"),
    ("linear", "rope_scaling must be an object or null, got 'linear'"),
]
TOWER = [
    ({"num_hidden_layers": -1}, "num_hidden_layers must be an integer from 1 to 1000, got -1"),
    ({"num_hidden_layers": 10**7}, "num_hidden_layers must be an integer from 1 to 1000, got 10000000"),
    ({"patch_size": 0}, f"patch_size must be {COUNT}, got 0"),
    ({"patch_size": 100}, "patch_size=100 must be at most image_size=98"),
    ({"hidden_size": "x"}, "Validation error for field 'hidden_size'"),
    ({"layer_norm_eps": 0.0}, f"layer_norm_eps must be {NUMBER}, got 0.0"),
]


@pytest.mark.parametrize(("settings", "message"), CASES)
def test_a_setting_that_cannot_be(copied, rejection, settings, message):
    folder = copied(**settings)
    assert message in rejection(folder)


@pytest.mark.parametrize(("rope", "message"), ROPE)
def test_a_rope_that_cannot_be(copied, rejection, rope, message):
    folder = copied(rope_scaling=rope)
    assert rejection(folder).startswith(f"{folder / 'config.json'}: ")
    assert message in rejection(folder)


def test_a_rope_in_the_words_of_transformers_5(copied, rejection):
    assert "the rope_type of rope_parameters must be one of" in rejection(copied(rope_parameters={"rope_type": "foo"}))


def test_a_scaled_rope_keeps_its_base(copied):
    """transformers 5 writes the base into `rope_parameters`, which scaling replaces."""
    folder = copied(rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    settings, _ = read_settings(folder, None, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}})
    rope = make_config(settings, {}, "here").rope_parameters
    assert {name: rope[name] for name in ("rope_type", "factor", "rope_theta")} == {
        "rope_type": "linear",
        "factor": 2.0,
        "rope_theta": 1e6,
    }


@pytest.mark.parametrize(("changes", "message"), TOWER)
def test_a_tower_that_cannot_be(copied, rejection, llava_golden, changes, message):
    vision = json.loads((llava_golden / "ckpt-video" / "config.json").read_text())["vision_config"]
    text = rejection(copied(vision_config={**vision, **changes}))
    assert "vision_config: " in text
    assert message in text


def test_overwritten_settings_are_checked(llava_golden, rejection):
    message = rejection(llava_golden / "ckpt-video", overwrite_config={"mm_spatial_pool_mode": "median"})
    assert "config.json with overwrite_config: mm_spatial_pool_mode must be one of" in message


def test_a_config_of_another_place_is_named(copied, rejection, tmp_path):
    path = tmp_path / "custom.json"
    path.write_text("{")
    assert f"{path} is not valid JSON" in rejection(copied(), customized_config=str(path))


@pytest.mark.parametrize("stride", [None, 2, 4])
def test_strides_of_released_checkpoints_load(copied, stride):
    """A stride has no effect, as in LLaVA-NeXT, where it is 2 whatever the checkpoint says."""
    load_pretrained_model(str(copied(mm_spatial_pool_stride=stride)), None, "x", attn_implementation="sdpa")
