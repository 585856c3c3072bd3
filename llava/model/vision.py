"""Choice of the vision tower that a configuration names.

Source: the naming rules are those of https://github.com/LLaVA-VL/LLaVA-NeXT. Unlike there, a local folder is judged by
its config.json and is not taken for CLIP because it exists.
"""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPVisionConfig, SiglipVisionConfig

from llava.model.known_towers import known_geometry
from llava.model.tower import ClipTower, SiglipTower, VisionTower
from llava.model.tower_files import OPEN_CLIP_PREFIX, missing_tower
from stgridpool.checkpoint_files import is_hub_name, one_line, read_json

SUPPORTED_TOWERS = (
    "SigLIP (names that contain 'siglip'), CLIP (names that begin with 'openai' or 'laion' or contain 'ShareGPT4V'), "
    "a local folder of a SigLIP or CLIP model, and OpenCLIP ('open_clip_hub:NAME')"
)


def build_vision_tower(config: Any) -> VisionTower:
    """Build the tower that a checkpoint's configuration names, without its weights.

    Args:
        config: Configuration with the checkpoint's `mm_*` fields.

    Raises:
        ValueError: If the kind of the tower is not supported, or its geometry cannot be found.
    """
    name = str(config.mm_vision_tower)
    select = (config.mm_vision_select_layer, config.mm_vision_select_feature)
    geometry = tower_geometry(config)
    if geometry is None:
        from llava.model.open_clip_tower import OpenClipTower  # noqa: PLC0415  open_clip is slow to import

        return OpenClipTower(name, config.vision_tower_pretrained, *select)
    geometry._attn_implementation = config._attn_implementation
    if isinstance(geometry, SiglipVisionConfig):
        return SiglipTower(name, geometry)
    return ClipTower(name, geometry, *select)


def tower_geometry(config: Any) -> SiglipVisionConfig | CLIPVisionConfig | None:
    """Find the configuration of a SigLIP or CLIP tower; None for OpenCLIP, since only open_clip knows it.

    In order of precedence it is `config.vision_config`, the config.json of a local folder, an entry of a built-in table
    for the towers of released checkpoints (by the last part of the name), or the hub's config.json.

    Args:
        config: Configuration with the checkpoint's `mm_*` fields.

    Raises:
        ValueError: If the kind of the tower is not supported, or its geometry cannot be found.
    """
    name = str(config.mm_vision_tower)
    kind = _kind(name, config.vision_config)
    if kind == "open_clip":
        return None
    config_class = SiglipVisionConfig if kind == "siglip" else CLIPVisionConfig
    try:
        geometry: SiglipVisionConfig | CLIPVisionConfig = _geometry(name, config_class, config.vision_config)
    except StrictDataclassError as error:
        place = "vision_config" if config.vision_config is not None else f"config.json of {name}"
        raise ValueError(f"{place}: {one_line(error)}") from error
    return geometry


def _kind(name: str, vision_config: dict[str, Any] | None) -> str:
    if name.startswith(OPEN_CLIP_PREFIX):
        return "open_clip"
    described = name
    if vision_config is not None:
        described = vision_config.get("model_type", name)
    elif Path(name).is_dir():
        described = read_json(Path(name, "config.json")).get("model_type", "")
    if "siglip" in described.lower():
        return "siglip"
    if described.startswith(("openai", "laion", "clip")) or "ShareGPT4V" in described:
        return "clip"
    if "/" in name and not is_hub_name(name) and not Path(name).is_dir():
        raise ValueError(missing_tower(name))
    raise ValueError(f"vision tower {name!r} is not supported; supported are {SUPPORTED_TOWERS}")


def _geometry(name: str, config_class: type[Any], vision_config: dict[str, Any] | None) -> Any:
    if vision_config is not None:
        return config_class(**vision_config)
    if not Path(name).is_dir():
        # Users' checkpoints name the folder of the tower during their training; its last part identifies the tower.
        if (geometry := known_geometry(name)) is not None:
            return config_class(**geometry)
        if not is_hub_name(name):
            raise ValueError(missing_tower(name))
    try:
        return config_class.from_pretrained(name)
    except OSError as error:
        raise ValueError(
            f"mm_vision_tower={name!r} of config.json is not a folder here, and the hub does not provide its "
            "config.json: "
            f"{one_line(error)}"
        ) from error
