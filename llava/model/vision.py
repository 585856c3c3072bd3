"""Which vision tower a configuration asks for.

Source: the naming rules are those of https://github.com/LLaVA-VL/LLaVA-NeXT. Unlike there, a local folder is judged by
its config.json and is not taken for CLIP because it exists.
"""

from pathlib import Path, PurePath
from typing import Any

from transformers import CLIPVisionConfig, PreTrainedConfig, SiglipVisionConfig

from llava.model.tower import ClipTower, SiglipTower, VisionTower

SUPPORTED_TOWERS = (
    "SigLIP (names that contain 'siglip'), CLIP (names that begin with 'openai' or 'laion' or contain 'ShareGPT4V'), "
    "a local folder of a SigLIP or CLIP model, and OpenCLIP ('open_clip_hub:NAME')"
)

# Geometry of towers that need not be on disk, since checkpoints hold their weights. Their other settings are the
# defaults.
_GEOMETRY: dict[str, dict[str, Any]] = {
    "google/siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "openai/clip-vit-large-patch14-336": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    },
}


def build_vision_tower(config: Any) -> VisionTower:
    """The tower that a checkpoint's configuration names, without its weights.

    Its geometry is `config.vision_config` where there is one, else the config.json of a local folder, else a built-in
    table for the towers of the released checkpoints, by the last part of the name, else the hub's config.json.

    Args:
        config: Configuration with the checkpoint's `mm_*` fields.

    Raises:
        ValueError: The tower is of no supported kind.
    """
    name = str(config.mm_vision_tower)
    select = (config.mm_vision_select_layer, config.mm_vision_select_feature)
    kind = _kind(name, config.vision_config)
    if kind == "open_clip":
        from llava.model.open_clip_tower import OpenClipTower  # noqa: PLC0415  open_clip is slow to import

        return OpenClipTower(name, config.vision_tower_pretrained, *select)
    geometry = _geometry(name, SiglipVisionConfig if kind == "siglip" else CLIPVisionConfig, config.vision_config)
    geometry._attn_implementation = config._attn_implementation
    return SiglipTower(name, geometry) if kind == "siglip" else ClipTower(name, geometry, *select)


def _kind(name: str, vision_config: dict[str, Any] | None) -> str:
    if name.startswith("open_clip_hub:"):
        return "open_clip"
    described = name
    if vision_config is not None:
        described = vision_config.get("model_type", name)
    elif Path(name, "config.json").is_file():
        described = PreTrainedConfig.get_config_dict(name)[0].get("model_type", "")
    if "siglip" in described.lower():
        return "siglip"
    if described.startswith(("openai", "laion", "clip")) or "ShareGPT4V" in described:
        return "clip"
    raise ValueError(f"vision tower {name!r} is not supported; supported are {SUPPORTED_TOWERS}")


def _geometry(name: str, config_class: type[Any], vision_config: dict[str, Any] | None) -> Any:
    if vision_config is not None:
        return config_class.from_dict(dict(vision_config))
    if not Path(name, "config.json").is_file():
        # Users' copies name the folder where the tower lay when they were trained: its last part says which one it was.
        for known, geometry in _GEOMETRY.items():
            if PurePath(name).name == PurePath(known).name:
                return config_class(**geometry)
    return config_class.from_pretrained(name)
