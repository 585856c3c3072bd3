"""The settings of an NVILA checkpoint, from its four configuration files, in LLaVA's terms."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.model.settings import overwritten
from llava.nvila.configuration import ASPECT_RATIOS, RESIZE, NvilaConfig
from llava.nvila.layout import VIDEO_ENCODINGS, part_folder
from llava.nvila.tiles import DYNAMIC_S2
from stgridpool.checkpoint_files import read_json

logger = logging.getLogger(__name__)

_UNSUPPORTED = ("s2", "ps3")
_REQUIRED = {"mm_vision_select_layer": -2, "mm_vision_select_feature": "cls_patch"}
_ROOT = (
    *(*_UNSUPPORTED, *_REQUIRED, "image_aspect_ratio", "min_tiles", "max_tiles", "video_max_tiles", "fps"),
    *("dynamic_s2", "s2_scales", "s2_resize_output_to_scale_idx", "num_video_frames"),
    *("image_encoder", "video_encoder", "chat_template"),
)
"""Settings of the root that may be overwritten."""
_WITHOUT_EFFECT = (
    *(f"{kind}_{place}_ids" for kind in ("image", "video") for place in ("start", "end")),
    *("tile_end_ids", "video_sep_ids", "pool_sizes", "mm_spatial_pool_mode", "mm_spatial_pool_stride"),
)
_PREPROCESSING = {"resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_IGNORED = ("architectures", "model_type", "_name_or_path", "auto_map", "transformers_version", "model_max_length")


def read_root(folder: Path, overwrites: Mapping[str, Any]) -> dict[str, Any]:
    """Read the root's settings, of which some may be overwritten.

    Args:
        folder: The checkpoint.
        overwrites: Settings that take precedence; those that only other settings decide are refused.

    Raises:
        ValueError: If the file cannot be read, or a setting cannot be overwritten.
    """
    for name in _WITHOUT_EFFECT:
        if name in overwrites:
            raise ValueError(
                f"overwrite_config: {name} has no effect on NVILA, whose image_encoder and video_encoder decide: "
                "overwrite these"
            )
    return read_json(folder / "config.json") | {name: overwrites[name] for name in _ROOT if name in overwrites}


def read_nvila_settings(
    folder: Path, root: Mapping[str, Any], overwrites: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Read the settings of a checkpoint, and return them with their source for messages.

    The configurations of the parts count, not their copies in the root's. Python files are never run.

    Args:
        folder: The checkpoint.
        root: The result of `read_root`.
        overwrites: Settings that take precedence; those of the root have done so.

    Raises:
        ValueError: If a file cannot be read, or a setting is invalid or not supported.
    """
    source = str(folder / "config.json")
    llm, tower, projector = (
        read_json(part_folder(folder, root, part) / "config.json") for part in ("llm", "vision_tower", "mm_projector")
    )
    _check_parts(folder, llm, tower)
    _check_root(root, source)
    _check_preprocessing(part_folder(folder, root, "vision_tower"), tower)
    settings = {name: value for name, value in llm.items() if name not in _IGNORED}
    settings |= {
        "model_type": NvilaConfig.model_type,
        "architectures": ["NvilaForCausalLM"],
        "mm_vision_tower": str(part_folder(folder, root, "vision_tower")),
        "vision_config": tower,
        "mm_tunable_parts": "mm_vision_tower",  # the checkpoint holds its weights
        "mm_projector_type": projector.get("mm_projector_type"),
        "mm_use_im_patch_token": False,
        "mm_newline_position": "frame",
        "tokenizer_model_max_length": llm.get("max_position_embeddings"),  # as the official evaluation raises it
        "num_video_frames": root.get("num_video_frames") or NvilaConfig.num_video_frames,
        **{name: root[name] for name in _REQUIRED},
        **_image_settings(root, tower, source),
    }
    further = {name: value for name, value in overwrites.items() if name not in _ROOT}
    settings, source = overwritten(settings, further, source)
    encoding = settings.get("video_encoding", NvilaConfig.video_encoding)
    if encoding not in VIDEO_ENCODINGS:
        raise ValueError(f"video_encoding must be one of {', '.join(VIDEO_ENCODINGS)}, got {encoding!r}")
    return settings, source


def _check_parts(folder: Path, llm: Mapping[str, Any], tower: Mapping[str, Any]) -> None:
    if llm.get("model_type") != "qwen2":
        raise ValueError(f"{folder}: llm must be a Qwen2 model, as in NVILA, got {llm.get('model_type')!r}")
    if tower.get("model_type") != "siglip_vision_model":
        raise ValueError(f"{folder}: vision_tower must be a SigLIP model, got {tower.get('model_type')!r}")


def _check_root(root: Mapping[str, Any], source: str) -> None:
    for name in _UNSUPPORTED:
        if root.get(name):
            raise ValueError(
                f"{source}: {name}={root[name]} is not supported: no NVILA checkpoint that we know uses it"
            )
    for name, value in _REQUIRED.items():
        if root.get(name) != value:
            raise ValueError(f"{source}: {name} must be {value!r}, as in NVILA, got {root.get(name)!r}")
    if root.get("video_max_tiles") not in (None, 1):
        raise ValueError(f"{source}: video_max_tiles must be 1 or left out, got {root['video_max_tiles']!r}")
    frames = root.get("num_video_frames")
    if frames is not None and (type(frames) is not int or frames < 1):
        raise ValueError(f"{source}: num_video_frames must be an integer of at least 1, got {frames!r}")
    if root.get("fps"):
        logger.warning("%s: fps=%s has no effect on sampling: pass fps to sample by time", source, root["fps"])


def _check_preprocessing(folder: Path, tower: Mapping[str, Any]) -> None:
    found, side = read_json(folder / "preprocessor_config.json"), tower.get("image_size")
    wanted = {"size": {"height": side, "width": side}, **_PREPROCESSING}
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(
                f"{folder / 'preprocessor_config.json'}: {name} must be {value}, as in the tower's config.json and in "
                f"NVILA, got {found.get(name)!r}"
            )


def _image_settings(root: Mapping[str, Any], tower: Mapping[str, Any], source: str) -> dict[str, Any]:
    mode, has_scales = root.get("image_aspect_ratio") or RESIZE, bool(root.get("dynamic_s2"))
    if mode not in ASPECT_RATIOS:
        raise ValueError(f"{source}: image_aspect_ratio must be one of {', '.join(ASPECT_RATIOS)}, got {mode!r}")
    if mode == DYNAMIC_S2 and not has_scales:
        raise ValueError(f"{source}: image_aspect_ratio={mode} needs dynamic_s2=true")
    tiles = {name: root.get(name) or getattr(NvilaConfig, name) for name in ("min_tiles", "max_tiles")}
    if any(type(count) is not int for count in tiles.values()) or not 1 <= tiles["min_tiles"] <= tiles["max_tiles"]:
        raise ValueError(
            f"{source}: min_tiles and max_tiles must be integers, 1 <= min_tiles <= max_tiles, got {tiles}"
        )
    settings = {"image_aspect_ratio": mode, "dynamic_s2": has_scales, **tiles}
    return settings | (_scales(root, tower, source) if has_scales else {})


def _scales(root: Mapping[str, Any], tower: Mapping[str, Any], source: str) -> dict[str, Any]:
    text, index = root.get("s2_scales"), root.get("s2_resize_output_to_scale_idx", 0)
    try:
        scales = [int(scale) for scale in str(text).split(",")]
    except ValueError:
        scales = []
    side = tower.get("image_size")
    if not scales or scales[0] != side or scales != sorted(scales) or any(scale % side for scale in scales):
        raise ValueError(
            f"{source}: s2_scales must be ascending multiples of the tower's image_size={side}, that one first, "
            f"such as '448,896,1344', got {text!r}"
        )
    if type(index) is not int or not -len(scales) <= index < len(scales):
        raise ValueError(f"{source}: s2_resize_output_to_scale_idx must be an index of s2_scales={text}, got {index!r}")
    return {"s2_scales": scales, "s2_resize_output_to_scale_idx": index}
