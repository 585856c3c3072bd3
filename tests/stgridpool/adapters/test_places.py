"""What is known of a method in a native model before it is loaded is what the adapter says of the model."""

from dataclasses import dataclass

import pytest
from transformers import CONFIG_MAPPING

from stgridpool import Bilinear, build_compressor
from stgridpool.adapters.families import FAMILIES
from stgridpool.adapters.names import BOTH_WAYS, LINEAR
from stgridpool.adapters.places import check_places, check_settings
from stgridpool.evidence import Question

pytestmark = pytest.mark.adapters
DEEP = {"vision_config": {"deepstack_visual_indexes": [8, 16, 24]}}
WITH_LISTED = {"text_config": {"layer_types": ["linear_attention", "full_attention"]}}
FULL = {"text_config": {"layer_types": ["full_attention", "full_attention"]}}


def test_names_are_those_of_the_adapters_and_of_transformers_defaults():
    kinds = {kind: family for family in FAMILIES for kind in family.model_types}
    assert set(BOTH_WAYS) == {kind for kind, family in kinds.items() if family.attends_both_ways}
    texts = {kind: CONFIG_MAPPING[kind]().get_text_config() for kind in kinds if kind in CONFIG_MAPPING}
    assert set(LINEAR) == {
        kind for kind, text in texts.items() if set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    }
    assert all(family.tower_name is not None for family in FAMILIES)  # each gives the evidence of its tower


@pytest.mark.parametrize(
    ("kind", "settings", "method", "options", "message"),
    [
        ("molmo2", {}, "sttm", {"layer": 2}, "inside the language model, which it cannot in molmo2: there visual"),
        ("qwen3_5", {}, "sttm", {"layer": 2}, "full attention in every layer, and qwen3_5 has others"),
        ("qwen3_5_moe", WITH_LISTED, "sttm", {"layer": 2}, "and qwen3_5_moe has others"),
        ("qwen2_vl", WITH_LISTED, "sttm", {"layer": 2}, "and qwen2_vl has others"),
        ("qwen3_vl", DEEP, "sttm", {"layer": 2}, "before layer 2 of the language model, .* up to layer 3: choose that"),
        ("qwen2_vl", {}, "image_grid", {}, "acts on frames or in the vision tower"),
        ("qwen2_vl", {}, "prumerge", {"importance": "class"}, "needs .*ClassAttention.*; this model offers"),
        ("qwen2_vl", {}, "fastvid", {"importance": "received", "frames": "pool_head"}, "asks for a part that native"),
        ("qwen2_vl", {"num_hidden_layers": 20}, "framefusion", {"layer_average": 0.04}, "must be above 1/20"),
        ("qwen2_vl", {}, "cdpruner", {"relevance": "tower"}, "needs .*JointPatches.*; this model offers"),
    ],
)
def test_what_settings_rule_out_is_refused(kind, settings, method, options, message):
    with pytest.raises(ValueError, match=message):
        check_settings(build_compressor(method, **options), {"model_type": kind, **settings})


@pytest.mark.parametrize(
    ("kind", "settings", "method", "options"),
    [
        ("molmo2", {}, "vidcom2", {}),
        ("qwen3_5", {}, "vidcom2", {}),
        ("qwen3_5", FULL, "sttm", {"layer": 2}),
        ("qwen3_vl", DEEP, "sttm", {"layer": 3}),
        ("qwen2_5_vl", {}, "sttm", {"layer": 2}),
        ("qwen2_vl", {"text_config": {"num_hidden_layers": 36}}, "framefusion", {"layer_average": 0.03}),  # above 1/36
    ],
)
def test_what_they_do_not_rule_out_is_not(kind, settings, method, options):
    check_settings(build_compressor(method, **options), {"model_type": kind, **settings})


@dataclass(frozen=True)
class _Elsewhere(Bilinear):
    needs = frozenset({Question("tower")})


def test_a_mean_is_judged_at_the_depth_of_the_model():
    check_places(build_compressor("framefusion", layer_average=0.03))


def test_a_text_half_of_the_tower_is_not_there():
    with pytest.raises(ValueError, match="native models have no text half of a vision tower"):
        check_settings(_Elsewhere(), {"model_type": "qwen2_vl"})
