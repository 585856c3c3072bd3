"""Checkpoints in the shapes in which they are published, also by older versions of transformers, are accepted."""

import json

import pytest
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig

from native_models.families import save
from stgridpool.adapters.native_checks import check_stored, outline, read_config
from stgridpool.adapters.native_processor import load_processor

pytestmark = pytest.mark.adapters

QWEN2 = {
    **{"hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944, "max_window_layers": 28},
    **{"max_position_embeddings": 32768, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4},
    **{"rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": False},
    **{"tie_word_embeddings": False, "vocab_size": 152064},
}
QWEN2_VL = {
    **QWEN2,
    **{"model_type": "qwen2_vl", "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}},
    **{"vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654},
    **{"image_token_id": 151655, "video_token_id": 151656},
    "vision_config": {
        **{"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "hidden_size": 3584},
        **{"patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2},
    },
}
QWEN3_TEXT = {
    **{"head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 32},
    **{"num_hidden_layers": 2, "num_key_value_heads": 4, "rope_theta": 5000000, "vocab_size": 151936},
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
}
EXPERTS = {
    **{"decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 768, "num_experts": 128},
    **{"num_experts_per_tok": 8, "shared_expert_intermediate_size": 0, "sliding_window": None},
}
LLAMA = {
    **{"model_type": "llama", "max_position_embeddings": 4096, "pad_token_id": 0, "rms_norm_eps": 1e-5},
    **{"vocab_size": 32064, "_name_or_path": "lmsys/vicuna-7b-v1.5"},
}
CLIP = {
    **{"model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096},
    **{"num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768},
}
SETTINGS = {
    "Qwen2-VL-7B-Instruct": QWEN2_VL,
    "saved for flash-attn": QWEN2_VL | {"_attn_implementation": "flash_attention_2"},
    "a tiny Qwen2.5-VL for tests of training": QWEN2_VL
    | {"model_type": "qwen2_5_vl", "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    | {"rope_scaling": {"mrope_section": [1, 1], "rope_type": "default", "type": "default"}}
    | {"vision_config": {"depth": 2, "fullatt_block_indexes": [7, 15, 23, 31], "num_heads": 4, "out_hidden_size": 16}},
    "Qwen3-VL-30B-A3B": {
        "model_type": "qwen3_vl_moe",
        "text_config": {"model_type": "qwen3_vl_moe_text"} | QWEN3_TEXT | EXPERTS,
        "vision_config": {"deepstack_visual_indexes": [5, 11, 17], "depth": 24, "out_hidden_size": 2048},
    },
    "GLM-4.5V": {
        "model_type": "glm4v_moe",
        "text_config": {
            **{"head_dim": 128, "hidden_size": 4096, "num_attention_heads": 96, "num_key_value_heads": 8},
            **{"first_k_dense_replace": 1, "n_group": 1, "n_routed_experts": 128, "n_shared_experts": 1},
            **{"num_experts_per_tok": 8, "num_hidden_layers": 2, "partial_rotary_factor": 0.5, "topk_group": 1},
            "rope_scaling": {"rope_type": "default", "mrope_section": [8, 12, 12]},
        },
    },
    "InternVL3-1B-hf": {
        **{"model_type": "internvl", "downsample_ratio": 0.5, "vision_feature_select_strategy": "default"},
        "text_config": QWEN2
        | {"model_type": "qwen2", "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}},
        "vision_config": {"model_type": "internvl_vision", "image_size": [448, 448], "patch_size": [14, 14]},
    },
    "SmolVLM2-500M": {
        **{"model_type": "smolvlm", "image_token_id": 49190, "scale_factor": 4},
        "text_config": {
            **{"model_type": "llama", "head_dim": 64, "hidden_size": 960, "num_attention_heads": 15},
            **{"num_key_value_heads": 5, "num_hidden_layers": 2, "pad_token_id": 2, "vocab_size": 49280},
            "perceiver_config": {"hidden_act": "silu", "num_key_value_heads": 1, "resampler_depth": 6},
        },
        "vision_config": {
            **{"model_type": "smolvlm_vision", "hidden_size": 768, "image_size": 512, "num_attention_heads": 12},
            **{"max_image_size": {"longest_edge": 512}, "patch_size": 16, "size": {"longest_edge": 2048}},
        },
    },
    "LLaVA-NeXT-Video-7B-hf": {
        **{"model_type": "llava_next_video", "image_token_index": 32001, "video_token_index": 32000},
        **{"spatial_pool_stride": 2, "vision_feature_layer": -2, "vision_feature_select_strategy": "default"},
        **{"text_config": LLAMA, "vision_config": CLIP},
    },
    "Molmo2-4B": {
        **{"model_type": "molmo2", "auto_map": {"AutoConfig": "configuration_molmo2.Molmo2Config"}},
        "adapter_config": {"attn_implementation": "flash_attention_2", "model_type": "", "vit_layers": [-3, -9]},
        "text_config": {"model_type": "molmo2_text", "rope_scaling": None, "rope_theta": 5000000},
        "vit_config": {"image_default_input_size": [378, 378], "image_patch_size": 14, "num_hidden_layers": 27},
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_published_settings_are_accepted(tmp_path, name):
    if SETTINGS[name]["model_type"] not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {SETTINGS[name]['model_type']}")
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS[name]))
    model = outline(read_config(tmp_path, SETTINGS[name]))
    assert model.config.model_type == SETTINGS[name]["model_type"]


def test_a_checkpoint_saved_for_a_missing_kind_of_attention_is_checked(tmp_path):
    """The user chooses another kind."""
    save("qwen2_vl", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"_attn_implementation": "flash_attention_2"}))
    assert "lm_head.weight" in check_stored(tmp_path)


def test_tied_weights_may_be_stored_twice(tmp_path):
    save("qwen2_vl", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    weights = load_file(tmp_path / "model.safetensors")
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(weights)
    check_stored(tmp_path)
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_stored(tmp_path)


PIXELS = {"min_pixels": 3136, "max_pixels": 12845056}
EDGES = {"shortest_edge": 3136, "longest_edge": 12845056}


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("qwen2_vl", "Qwen2VLImageProcessor", PIXELS | {"merge_size": 2, "temporal_patch_size": 2}),
        ("qwen2_vl", "Qwen2VLImageProcessor", PIXELS | {"size": PIXELS, "resample": 3, "rescale_factor": 1 / 255}),
        ("qwen2_5_vl", "Qwen2VLImageProcessor", {"size": EDGES, "crop_size": None, "do_center_crop": None}),
        (
            "smolvlm",
            "SmolVLMImageProcessor",
            {"max_image_size": {"longest_edge": 512}, "resample": 1, "size": {"longest_edge": 2048}},
        ),
        ("llava_onevision", "LlavaOnevisionImageProcessor", {"size": {"height": 56, "width": 56}, "do_pad": True}),
        ("video_llava", "VideoLlavaImageProcessor", {"crop_size": 32, "size": 32, "do_center_crop": True}),
    ],
)
def test_settings_of_pictures_alone_serve_videos(tmp_path, name, kind, settings):
    """Older checkpoints have no settings of videos of their own."""
    save(name, tmp_path)
    path = tmp_path / "processor_config.json"
    whole = json.loads(path.read_text())
    patch = {key: value for key, value in whole.pop("video_processor").items() if key == "patch_size"}
    del whole["image_processor"]
    path.write_text(json.dumps(whole))
    own = {"image_processor_type": kind, "processor_class": whole["processor_class"]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own | patch | settings))
    assert load_processor(str(tmp_path), AutoConfig.from_pretrained(tmp_path)).video_processor is not None


def test_code_of_a_checkpoint_is_not_run_even_if_the_user_would_say_yes(tmp_path, monkeypatch):
    """transformers asks on the terminal, in the middle of a run, unless it is told."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoProcessor": "own.Own"}}
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(ValueError, match=r"no model can be built from .*contains custom code"):
        read_config(tmp_path, own)
    (tmp_path / "processor_config.json").write_text(json.dumps(own))
    with pytest.raises(ValueError, match=r"the processor of .* cannot be loaded: .*contains custom code"):
        load_processor(str(tmp_path), None)
    assert not (tmp_path / "ran").exists()
