"""The geometry of vision towers that need not be on disk; nothing heavy is imported."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from stgridpool.checkpoint_files import read_json

# Checkpoints contain the weights of these towers. Other settings have their default values.
KNOWN_GEOMETRY: dict[str, dict[str, Any]] = {
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


def known_geometry(name: str) -> dict[str, Any] | None:
    """Return the geometry of a tower by the last part of its name; None if it is not in the table."""
    known = (geometry for tower, geometry in KNOWN_GEOMETRY.items() if PurePath(name).name == PurePath(tower).name)
    return next(known, None)


def patches_per_side(settings: Mapping[str, Any]) -> int | None:
    """Return the patches along a side of a frame; None if that is known only once the tower is built.

    Args:
        settings: The settings of a checkpoint in LLaVA-NeXT's format.

    Raises:
        ValueError: If the tower is a folder whose config.json cannot be read.
    """
    name = str(settings.get("mm_vision_tower"))
    geometry = settings.get("vision_config")
    if geometry is None and Path(name).is_dir():
        found = read_json(Path(name, "config.json"))
        geometry = found.get("vision_config", found)
    elif geometry is None:
        geometry = known_geometry(name)
    sizes = [geometry.get(key) for key in ("image_size", "patch_size")] if isinstance(geometry, dict) else [None, None]
    image, patch = sizes
    return image // patch if isinstance(image, int) and isinstance(patch, int) and patch > 0 else None
