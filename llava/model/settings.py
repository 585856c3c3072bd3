"""The configuration of a checkpoint: checks of its settings, and the object made from them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llava.model.anyres import check_merge_type
from llava.model.checkpoint_kind import ARCHITECTURE, check_original
from llava.model.language_model.llava_qwen import LlavaQwenConfig
from llava.model.own_pooling import POOLING_MODES
from stgridpool.adapters.setting_rules import (
    ACTIVATION,
    COUNT,
    FLAG,
    LAYERS,
    NO_OTHER_WEIGHTS,
    POSITIVE,
    Rule,
    check_by_rules,
    one_of,
)
from stgridpool.checkpoint_files import StoredTensor, one_line, read_json
from stgridpool.newlines import NEWLINE_POSITIONS

_NULLABLE = ("mm_", "tokenizer_", "rope_scaling")
_ROPE_NEEDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "max_sequence_length",
    "tokenizer_model_max_length",
    "mm_hidden_size",
    "mm_spatial_pool_stride",
)
_FLAGS = (
    "tie_word_embeddings",
    "use_sliding_window",
    "mm_use_im_start_end",
    "mm_use_im_patch_token",
    "add_faster_video",
)
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_COUNTS, COUNT),
    **dict.fromkeys(_FLAGS, FLAG),
    "rms_norm_eps": POSITIVE,
    "rope_theta": POSITIVE,
    "hidden_act": ACTIVATION,
    "mm_spatial_pool_mode": one_of(POOLING_MODES),
    "mm_newline_position": one_of(NEWLINE_POSITIONS),
    "tokenizer_padding_side": one_of(("left", "right")),
    "torch_dtype": one_of(_DTYPES),
    "dtype": one_of(_DTYPES),
    "vision_config": Rule("an object", lambda value: isinstance(value, dict)),
    "mm_vision_tower": Rule("a name", lambda value: isinstance(value, str)),
    "mm_vision_select_layer": Rule("an integer", lambda value: type(value) is int),
    "mm_patch_merge_type": Rule("a text", lambda value: isinstance(value, str)),
    "transformers_weights": NO_OTHER_WEIGHTS,
}
_TOWER_RULES: dict[str, Rule] = {
    **dict.fromkeys(["hidden_size", "intermediate_size", "num_attention_heads"], COUNT),
    "num_hidden_layers": LAYERS,
    **dict.fromkeys(["image_size", "patch_size", "num_channels"], COUNT),
    "layer_norm_eps": POSITIVE,
    "hidden_act": ACTIVATION,
}


def read_settings(folder: Path, customized: Any, overwrites: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Read the settings of a checkpoint, and return them with their source for messages.

    Args:
        folder: The checkpoint.
        customized: A configuration, or the JSON file or folder of one, instead of the checkpoint's; or None.
        overwrites: Settings that take precedence over those of the configuration.

    Raises:
        ValueError: If the file cannot be read, the checkpoint is of another kind, or a setting is invalid.
    """
    if isinstance(customized, PreTrainedConfig):
        settings, source = customized.to_dict(), "customized_config"
    else:
        path = Path(customized or folder)
        path = path / "config.json" if path.is_dir() else path
        settings, source = read_json(path), str(path)
    check_original(settings, folder, source)
    settings = {**settings, "model_type": LlavaQwenConfig.model_type, "architectures": [ARCHITECTURE]}
    return overwritten(settings, overwrites, source)


def overwritten(settings: Mapping[str, Any], overwrites: Mapping[str, Any], source: str) -> tuple[dict[str, Any], str]:
    """Overwrite and check settings, and return them with their source for messages.

    Args:
        settings: Of the checkpoint, in LLaVA's terms.
        overwrites: Settings that take precedence; the kind of the checkpoint stays.
        source: Source of the settings.

    Raises:
        ValueError: If a setting is invalid.
    """
    if overwrites.get("rope_scaling") is not None and isinstance(settings.get("rope_parameters"), dict):
        settings = _with_theta_aside(settings)
    kind = {name: settings[name] for name in ("model_type", "architectures")}
    settings = {**settings, **overwrites, **kind}
    # Null means "not set" in released checkpoints (rope_scaling, for one); the defaults then hold.
    absent = [name for name, value in settings.items() if value is None and name.startswith(_NULLABLE)]
    settings = {name: value for name, value in settings.items() if name not in absent}
    source = f"{source} with overwrite_config" if overwrites else source
    check_by_rules(settings, _RULES, source)
    check_merge_type(settings.get("mm_patch_merge_type", LlavaQwenConfig.mm_patch_merge_type))
    _check_rope(settings, source)
    return settings, source


def _with_theta_aside(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with `rope_theta` outside `rope_parameters`, which another `rope_scaling` replaces."""
    rope = settings["rope_parameters"]
    theta = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    return {name: value for name, value in settings.items() if name != "rope_parameters"} | theta


def make_config(
    settings: Mapping[str, Any],
    tensors: Mapping[str, StoredTensor],
    source: str,
    config_class: type[LlavaQwenConfig] = LlavaQwenConfig,
) -> LlavaQwenConfig:
    """Make the configuration object, after comparing the number of layers with the weights.

    Args:
        settings: The result of `read_settings`.
        tensors: The tensors in the weight files.
        source: Source of the settings, for messages.
        config_class: Class of the configuration.

    Raises:
        ValueError: If the weights have another number of layers, or a setting has the wrong type.
    """
    layers = {int(match.group(1)) for match in map(_LAYER.match, tensors) if match}
    wanted = settings.get("num_hidden_layers", LlavaQwenConfig().num_hidden_layers)
    if layers and wanted != max(layers) + 1:
        raise ValueError(
            f"{source}: num_hidden_layers={wanted} contradicts the weights, which hold model.layers.0 to "
            f"model.layers.{max(layers)}: it must be {max(layers) + 1}"
        )
    try:
        return config_class.from_dict(dict(settings))
    except (StrictDataclassError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: {one_line(error)}") from error


def check_tower_settings(geometry: Any, source: str) -> None:
    """Check that the geometry of a SigLIP or CLIP tower, which was read from `source`, is valid.

    Raises:
        ValueError: If it is not.
    """
    check_by_rules(vars(geometry), _TOWER_RULES, source)
    if geometry.hidden_size % geometry.num_attention_heads:
        raise ValueError(
            f"{source}: num_attention_heads={geometry.num_attention_heads} must divide "
            f"hidden_size={geometry.hidden_size}"
        )
    if geometry.patch_size > geometry.image_size:
        raise ValueError(f"{source}: patch_size={geometry.patch_size} must be at most image_size={geometry.image_size}")


def _check_rope(settings: Mapping[str, Any], source: str) -> None:
    """Check the settings of rotary embeddings.

    Raises:
        ValueError: If transformers does not know their kind, or a factor is missing or not a number above 0.
    """
    for name in ("rope_scaling", "rope_parameters"):
        rope = settings.get(name)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise ValueError(f"{source}: {name} must be an object or null, got {rope!r}")
        kind = rope.get("rope_type", rope.get("type", "default"))
        known = ("default", *ROPE_INIT_FUNCTIONS)
        if kind not in known:
            raise ValueError(
                f"{source}: the rope_type of {name} must be one of {', '.join(known)}, got {kind!r}; released "
                "checkpoints have rope_scaling null"
            )
        for number in ("rope_theta", "factor"):
            if number in rope and not POSITIVE.holds(rope[number]):
                raise ValueError(f"{source}: {number} of {name} must be {POSITIVE.words}, got {rope[number]!r}")
        lacking = [word for word in _ROPE_NEEDS.get(kind, ()) if word not in rope]
        if lacking:
            raise ValueError(f"{source}: {name} of rope_type {kind!r} needs {', '.join(lacking)}, got {rope!r}")
