"""Loading of a native checkpoint's processor, and checks of its settings, by themselves and against the model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from stgridpool.adapters.native_checks import BUILDING_ERRORS
from stgridpool.adapters.native_settings import check_finite_numbers
from stgridpool.adapters.setting_rules import COUNT, FLAG, POSITIVE, Rule, check_by_rules
from stgridpool.checkpoint_files import one_line

_SIZE = Rule(
    "an object of integers of at least 1",
    lambda value: isinstance(value, Mapping) and all(one is None or COUNT.holds(one) for one in value.values()),
)
_DEVIATIONS = Rule(
    "a number above 0, or one for each channel",
    lambda value: all(map(POSITIVE.holds, value if isinstance(value, list | tuple) and value else [value])),
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(("patch_size", "merge_size", "temporal_patch_size"), COUNT),
    **dict.fromkeys(("num_frames", "min_frames", "max_frames"), COUNT),
    **dict.fromkeys(("fps", "rescale_factor"), POSITIVE),
    **dict.fromkeys(("size", "crop_size", "max_image_size"), _SIZE),
    **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), FLAG),
    "image_std": _DEVIATIONS,
    "resample": Rule("an integer from 0 to 5", lambda value: isinstance(value, int) and 0 <= value <= 5),
}
_SAME = {"patch_size": "patch_size", "merge_size": "spatial_merge_size", "temporal_patch_size": "temporal_patch_size"}
"""Names in the vision configuration by names in the processor."""
_FIXED_SIZE = ("siglip", "clip")
"""Beginnings of the kinds of vision tower that take frames of one size."""


def load_processor(checkpoint: str | Path, config: Any) -> Any:
    """Load the processor of a checkpoint.

    Args:
        checkpoint: Folder or hub name.
        config: The configuration of its model, which the processor must fit.

    Raises:
        ValueError: If a file is missing or damaged, a setting is invalid or contradicts the configuration, or the
            processor is not one for videos.
    """
    repair = "copy its files from the checkpoint this one was made of"
    try:
        processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    except BUILDING_ERRORS as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"the processor of {checkpoint} cannot be loaded: {reason}; {repair}") from error
    if getattr(processor, "video_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ValueError(f"{checkpoint} has a {type(processor).__name__}, which is no processor of videos; {repair}")
    settings = processor.video_processor.to_dict()
    source = f"{checkpoint}: settings of {type(processor.video_processor).__name__}"
    check_video_settings(settings, source)
    _check_fit(settings, config.vision_config, source)
    _check_token_ids(processor, config, checkpoint)
    if getattr(processor.video_processor, "cap_pixels_per_frame", False) is None:
        processor.video_processor.cap_pixels_per_frame = True  # as in Qwen's own code; transformers will change to it
    return processor


def check_video_settings(settings: Mapping[str, Any], source: str) -> None:
    """Check that settings of a video processor are in their ranges.

    Args:
        settings: Values by name, as `to_dict` gives them.
        source: Source of the settings, for messages.

    Raises:
        ValueError: If one is not; the message has source, name and value.
    """
    check_finite_numbers(settings, source)
    check_by_rules(settings, _RULES, source)
    fewest, most = settings.get("min_frames"), settings.get("max_frames")
    if fewest is not None and most is not None and fewest > most:
        raise ValueError(f"{source}: min_frames={fewest} must be at most max_frames={most}")


def _check_fit(settings: Mapping[str, Any], tower: Any, source: str) -> None:
    """Check that a video processor makes what a vision tower takes.

    Raises:
        ValueError: If it does not.
    """
    for name, other in _SAME.items():
        own, wanted = settings.get(name), getattr(tower, other, None)
        if isinstance(own, int) and isinstance(wanted, int) and own != wanted:
            raise ValueError(f"{source}: {name}={own} contradicts {other}={wanted} of vision_config in config.json")
    made = settings.get("crop_size" if settings.get("do_center_crop") else "size") or {}
    sides, side = (made.get("height"), made.get("width")), getattr(tower, "image_size", None)
    if tower.model_type.startswith(_FIXED_SIZE) and None not in sides and sides != (side, side):
        raise ValueError(f"{source}: frames of {sides} contradict image_size={side} of vision_config in config.json")


def _check_token_ids(processor: Any, config: Any, checkpoint: str | Path) -> None:
    """Check that processor and model mean the same tokens by placeholders of pictures and videos.

    Raises:
        ValueError: If they do not.
    """
    for kind in ("image", "video"):
        written = getattr(processor, f"{kind}_token_id", None)
        for name in (f"{kind}_token_id", f"{kind}_token_index"):
            read = config.to_dict().get(name)
            if written is not None and read is not None and read != written:
                raise ValueError(
                    f"{checkpoint}/config.json: {name} must be {written}, the id of the processor's "
                    f"{getattr(processor, f'{kind}_token')!r}, got {read}"
                )
