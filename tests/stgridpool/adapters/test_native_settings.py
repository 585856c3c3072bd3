"""Settings of native checkpoints: what is out of its range is refused by name, what families have by default is not."""

import json
import math
import re

import pytest
from transformers import CONFIG_MAPPING

from native_models.families import BUILDERS, build
from stgridpool.adapters.native_settings import check_agreement, check_ranges

pytestmark = pytest.mark.adapters


@pytest.mark.parametrize("name", BUILDERS)
def test_the_defaults_of_every_family_are_in_their_ranges(name):
    check_ranges(json.loads(build(name)[0].config.to_json_string()), "config.json")
    for config in (CONFIG_MAPPING[name](), build(name)[0].config):
        check_ranges(config.to_dict(), "config.json")
        check_agreement(config.to_dict(), "config.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"text_config": {"num_hidden_layers": -1}},
            "text_config.num_hidden_layers must be an integer from 1 to 1000, got -1",
        ),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers must be an integer from 1 to 1000, got 10000000"),
        ({"vision_config": {"depth": 4.0}}, "vision_config.depth must be an integer from 1 to 1000, got 4.0"),
        (
            {"text_config": {"num_attention_heads": 0}},
            "text_config.num_attention_heads must be an integer of at least 1, got 0",
        ),
        ({"text_config": {"vocab_size": True}}, "text_config.vocab_size must be an integer of at least 1, got True"),
        ({"text_config": {"rms_norm_eps": -1e-6}}, "text_config.rms_norm_eps must be a number above 0, got -1e-06"),
        ({"layer_norm_eps": math.nan}, "layer_norm_eps must be a finite number, got nan"),
        ({"unknown": {"number": math.inf}}, "unknown.number must be a finite number, got inf"),
        ({"numbers": [1, -math.inf]}, "numbers must be a finite number, got -inf"),
        (
            {"vision_feature_select_strategy": "foo"},
            "vision_feature_select_strategy must be one of default, full",
        ),
        (
            {"text_config": {"rope_parameters": {"rope_theta": 0}}},
            "text_config.rope_parameters.rope_theta must be a number above 0, got 0",
        ),
        ({"rope_scaling": {"rope_type": "foo"}}, "rope_scaling.rope_type must be one of default, mrope, axial, "),
        ({"image_size": 0}, "image_size must be an integer of at least 1, or two of them, got 0"),
        ({"patch_size": [14, 0]}, "patch_size must be an integer of at least 1, or two of them, got [14, 0]"),
        ({"patch_size": [8, 8, 8]}, "patch_size must be an integer of at least 1, or two of them, got [8, 8, 8]"),
        ({"downsample_ratio": 2}, "downsample_ratio must be a number above 0, at most 1, got 2"),
        ({"video_token_id": -1}, "video_token_id must be an integer of at least 0, got -1"),
        ({"hidden_act": "foo"}, "hidden_act must be an activation that transformers knows, such as silu, got 'foo'"),
        (
            {"hidden_act": ["gelu"]},
            "hidden_act must be an activation that transformers knows, such as silu, got ['gelu']",
        ),
        (
            {"text_config": {"num_labels": 10**8}},
            "text_config.num_labels must be an integer from 0 to 1000",
        ),
        (
            {"transformers_weights": "other.safetensors"},
            "transformers_weights must be left out: the weights are",
        ),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false, got 'false'"),
    ],
)
def test_file_name_and_value_are_said(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape('x/config.json: ' + message)}"):
        check_ranges(settings, "x/config.json")


def test_null_means_not_set_and_a_large_integer_is_no_infinity():
    check_ranges({"sliding_window": None, "rope_theta": 10**400}, "config.json")


def test_values_that_mean_off_are_allowed():
    """No experts, no shared expert and no window; a further setting of what is off does not matter."""
    experts = ("num_experts", "n_routed_experts", "moe_intermediate_size", "shared_expert_intermediate_size")
    for window in (0, -1):
        settings = dict.fromkeys(experts, 0) | {"num_experts_per_tok": 8, "sliding_window": window}
        check_ranges(settings, "config.json")
        check_agreement(settings | {"n_group": 1}, "config.json")
    with pytest.raises(ValueError, match="sliding_window must be an integer of at least -1, got -2"):
        check_ranges({"sliding_window": -2}, "config.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a": {"patch_size": 9, "image_size": 8}}, "a.patch_size=9 must be at most a.image_size=8"),
        ({"num_experts_per_tok": 9, "num_experts": 8}, "num_experts_per_tok=9 must be at most num_experts=8"),
        (
            {"vision_config": {"depth": 3, "deepstack_visual_indexes": [2, 3]}},
            "vision_config.deepstack_visual_indexes must be from 0 to 2, as the vision tower has 3 layers, got 3",
        ),
        (
            {"vision_config": {"depth": 3, "deepstack_visual_indexes": [-1]}},
            "vision_config.deepstack_visual_indexes must be from 0 to 2, as the vision tower has 3 layers, got -1",
        ),
        (
            {"vision_config": {"num_hidden_layers": 3}, "vision_feature_layer": [-4, 4]},
            "vision_feature_layer must be from -4 to 3, as the vision tower has 3 layers, got 4",
        ),
        (
            {"vision_config": {"num_heads": 3, "hidden_size": 32}},
            "vision_config.num_heads=3 must divide vision_config.hidden_size=32",
        ),
        (
            {"vision_config": {"num_heads": 3, "embed_dim": 32, "hidden_size": 33}},
            "vision_config.num_heads=3 must divide vision_config.embed_dim=32",
        ),
        (
            {"num_key_value_heads": 3, "num_attention_heads": 4, "hidden_size": 32},
            "num_key_value_heads=3 must divide num_attention_heads=4",
        ),
        ({"n_group": 3, "n_routed_experts": 4}, "n_group=3 must divide n_routed_experts=4"),
        (
            {"vision_config": {"window_size": 7, "patch_size": 4, "spatial_merge_size": 2}},
            "vision_config.window_size=7 must be at least patch_size * spatial_merge_size = 8",
        ),
        (
            {"spatial_pool_stride": 5, "vision_config": {"image_size": 35, "patch_size": 8}},
            "spatial_pool_stride=5 must be at most 4, the patches per side",
        ),
        (
            {"vision_feature_select_strategy": "default", "vision_config": {"model_type": "siglip_vision_model"}},
            "vision_feature_select_strategy must be full, as siglip_vision_model has no class token to leave out",
        ),
        (
            {"image_token_index": 5, "video_token_index": 5},
            "image_token_index and video_token_index must differ, got 5 for both",
        ),
    ],
)
def test_names_and_values_of_a_contradiction_are_said(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape('x/config.json: ' + message)}"):
        check_agreement(settings, "x/config.json")


@pytest.mark.parametrize(
    ("sections", "share", "pairs"),
    [([2, 3, 4], None, 8), ([7], None, 8), ([-1, 4, 5], 1.0, 8), ([4, 2, 2], 0.5, 4), ("x", 1.0, 8)],
)
def test_sections_of_a_rotary_embedding_share_out_half_of_what_a_head_rotates(sections, share, pairs):
    text = {"hidden_size": 64, "num_attention_heads": 4}  # heads of 16
    rope = {} if share is None else {"partial_rotary_factor": share}

    def check(sections, **own):
        check_agreement({"text": text | own | {"rope_parameters": rope | {"mrope_section": sections}}}, "x")

    message = f"x: text.rope_parameters.mrope_section must be integers with the sum {pairs}, "
    with pytest.raises(ValueError, match=re.escape(message)):
        check(sections)
    check([pairs - 2, 1, 1])
    check([0, 0, 2 * pairs], head_dim=32)


@pytest.mark.parametrize("sections", [[8], [3, 5], [-1, 1, 1], "abc"])
def test_interleaved_sections_are_three_with_any_sum(sections):
    text = {"hidden_size": 64, "num_attention_heads": 4}

    def check(sections):
        rope = {"mrope_section": sections, "mrope_interleaved": True, "partial_rotary_factor": None}
        check_agreement({"text": text | {"rope_parameters": rope}}, "x")

    with pytest.raises(ValueError, match=r"^x: text\.rope_parameters\.mrope_section must be three integers, got "):
        check(sections)
    check([24, 20, 20])
