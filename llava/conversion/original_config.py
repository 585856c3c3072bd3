"""The LLaVA-NeXT configuration of a native checkpoint.

Source: https://huggingface.co/lmms-lab/llava-onevision-qwen2-7b-ov (config.json).
"""

from collections.abc import Mapping
from typing import Any

from transformers import LlavaOnevisionConfig

from llava.conversion.native_config import KEPT, TEXT_SETTINGS, VISION_SETTINGS
from llava.model.checkpoint_kind import ARCHITECTURE
from llava.model.known_towers import KNOWN_GEOMETRY


def check_native(native: Mapping[str, Any], source: str) -> None:
    """Check that LLaVA-NeXT has the parts of a native checkpoint.

    Args:
        native: The content of its config.json.
        source: Path of that file, for messages.

    Raises:
        ValueError: If it is of another class, or has another tower, language model or feature layer.
    """
    wanted = {
        "model_type": (native.get("model_type"), ("llava_onevision",)),
        "model_type of text_config": (_part(native, "text_config").get("model_type"), ("qwen2",)),
        "model_type of vision_config": (_part(native, "vision_config").get("model_type"), ("siglip_vision_model",)),
        "vision_feature_layer": (native.get("vision_feature_layer", -1), (-1, [-1])),
        "vision_feature_select_strategy": (native.get("vision_feature_select_strategy", "full"), ("full",)),
        "projector_hidden_act": (native.get("projector_hidden_act", "gelu"), ("gelu",)),
        "multimodal_projector_bias": (native.get("multimodal_projector_bias", True), (True,)),
    }
    for name, (value, allowed) in wanted.items():
        if value not in allowed:
            raise ValueError(
                f"{source}: {name} must be {allowed[0]!r} for a checkpoint in LLaVA-NeXT's format, got {value!r}"
            )


def original_settings(native: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the original config.json: the one kept, or one with OneVision's settings.

    Args:
        native: The content of the native config.json, as `check_native` wants it.
    """
    if isinstance(native.get(KEPT), dict):
        return dict(native[KEPT])
    config: Any = LlavaOnevisionConfig.from_dict(dict(native))  # with the defaults that files leave out
    text = config.text_config.to_dict()
    rope = text.get("rope_parameters") or {}
    settings = {name: text[name] for name in TEXT_SETTINGS if text.get(name) is not None}
    if "rope_theta" in rope:
        settings["rope_theta"] = rope["rope_theta"]
    if rope.get("rope_type", "default") != "default":
        settings["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return {
        "architectures": [ARCHITECTURE],
        "image_aspect_ratio": config.vision_aspect_ratio,
        "image_grid_pinpoints": [[width, height] for height, width in config.image_grid_pinpoints],
        "mm_newline_position": native.get("mm_newline_position", "one_token"),
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "model_type": "llava",
        "tokenizer_model_max_length": text["max_position_embeddings"],
        "tokenizer_padding_side": "right",
        "torch_dtype": native.get("dtype") or native.get("torch_dtype") or "float32",
        **_tower(config.vision_config.to_dict()),
        **settings,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _tower(vision: Mapping[str, Any]) -> dict[str, Any]:
    """Name the tower if it is a published one; otherwise describe it, with the layer that LLaVA drops."""
    whole = {name: vision[name] for name in VISION_SETTINGS}
    whole |= {"model_type": "siglip_vision_model", "num_hidden_layers": vision["num_hidden_layers"] + 1}
    for name, known in KNOWN_GEOMETRY.items():
        if "siglip" in name and all(whole.get(setting) == value for setting, value in known.items()):
            return {"mm_vision_tower": name, "mm_hidden_size": known["hidden_size"]}
    name = f"siglip-patch{vision['patch_size']}-{vision['image_size']}"
    return {"mm_vision_tower": name, "mm_hidden_size": vision["hidden_size"], "vision_config": whole}


def _part(native: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = native.get(name)
    return part if isinstance(part, Mapping) else {}
