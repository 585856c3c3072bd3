"""Checks of a native checkpoint's settings by themselves: ranges, and layers that are named by their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from stgridpool.adapters.setting_rules import ACTIVATION, COUNT, FLAG, LAYERS, POSITIVE, Rule, check_by_rules, one_of

_COUNTS = (
    *("hidden_size", "embed_dim", "intermediate_size", "out_hidden_size", "text_hidden_size", "vocab_size"),
    *("num_attention_heads", "num_key_value_heads", "num_heads", "head_dim"),
    *("moe_intermediate_size", "shared_expert_intermediate_size", "num_experts_per_tok"),
    *("num_experts", "num_local_experts", "n_routed_experts", "n_group", "topk_group", "decoder_sparse_step"),
    *("linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim"),
    *("linear_num_key_heads", "linear_num_value_heads"),
    *("max_position_embeddings", "original_max_position_embeddings", "num_position_embeddings", "sliding_window"),
    *("num_channels", "in_channels", "in_chans", "temporal_patch_size", "spatial_merge_size", "merge_size"),
    *("spatial_pool_stride", "scale_factor", "window_size"),
)
_INDICES = (
    *("image_token_id", "video_token_id", "image_token_index", "video_token_index"),
    *("vision_start_token_id", "vision_end_token_id", "image_start_token_id", "image_end_token_id"),
    *("video_start_token_id", "video_end_token_id", "frame_start_token_id", "frame_end_token_id"),
    *("max_window_layers", "first_k_dense_replace", "n_shared_experts"),
)
_POSITIVES = (
    *("rms_norm_eps", "layer_norm_eps", "rope_theta", "factor", "low_freq_factor", "high_freq_factor"),
    *("mlp_ratio", "tokens_per_second", "routed_scaling_factor"),
)
_FINITE = Rule("a finite number", lambda value: not isinstance(value, float) or math.isfinite(value))
_INDEX = Rule("an integer of at least 0", lambda value: type(value) is int and value >= 0)
_SHARE = Rule("a number above 0, at most 1", lambda value: POSITIVE.holds(value) and value <= 1)
_SIDES = Rule(
    "an integer of at least 1, or two of them",
    lambda value: all(map(COUNT.holds, value if isinstance(value, list | tuple) and len(value) == 2 else [value])),
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_COUNTS, COUNT),
    **dict.fromkeys(_INDICES, _INDEX),
    **dict.fromkeys(_POSITIVES, POSITIVE),
    **dict.fromkeys(("num_hidden_layers", "depth"), LAYERS),
    **dict.fromkeys(("image_size", "image_default_input_size", "patch_size", "image_patch_size"), _SIDES),
    **dict.fromkeys(("partial_rotary_factor", "downsample_ratio"), _SHARE),
    **dict.fromkeys(("hidden_act", "projector_hidden_act"), ACTIVATION),
    **dict.fromkeys(("tie_word_embeddings", "use_sliding_window"), FLAG),
    "rope_type": one_of(("default", "mrope", "axial", *ROPE_INIT_FUNCTIONS)),
}
_AT_MOST = (
    *(("num_experts_per_tok", experts) for experts in ("num_experts", "num_local_experts", "n_routed_experts")),
    *(("topk_group", "n_group"), ("patch_size", "image_size")),
)


def check_native_settings(settings: Mapping[str, Any], source: str) -> None:
    """Check that a native checkpoint's settings are in their ranges, and that layers named by number exist.

    All numbers must be finite; names without a rule may otherwise have any value.

    Args:
        settings: As in config.json, or with defaults filled in; the parts of the model are objects inside it.
        source: Source of the settings, for messages.

    Raises:
        ValueError: If one breaks a rule; the message has source, name and value.
    """
    for name, part in _parts(settings):
        named = {f"{name}{key}": value for key, value in part.items()}
        check_by_rules(named, dict.fromkeys(named, _FINITE), source)
        check_by_rules(named, {f"{name}{key}": rule for key, rule in _RULES.items()}, source)
        for small, large in _AT_MOST:
            one, most = part.get(small), part.get(large)
            if isinstance(one, int) and isinstance(most, int) and one > most:
                raise ValueError(f"{source}: {name}{small}={one} must be at most {name}{large}={most}")
        for key in ("fullatt_block_indexes", "deepstack_visual_indexes"):
            _check_layers(f"{source}: {name}{key}", part.get(key), part.get("depth"), is_state=False)
    tower = settings.get("vision_config")
    count = tower.get("num_hidden_layers") if isinstance(tower, Mapping) else None
    _check_layers(f"{source}: vision_feature_layer", settings.get("vision_feature_layer"), count, is_state=True)


def _parts(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the settings, and all objects inside them, with what stands before the names of their values."""
    waiting = [("", settings)]
    for name, part in waiting:
        yield name, part
        waiting += [(f"{name}{key}.", value) for key, value in part.items() if isinstance(value, Mapping)]


def _check_layers(place: str, taken: Any, count: Any, *, is_state: bool) -> None:
    """Check numbers of layers of a vision tower of `count` layers.

    Args:
        place: Source and name of the setting, for messages.
        taken: One number or several.
        count: Number of layers; nothing is checked if it is unknown.
        is_state: Whether they are numbers of hidden states, which begin with the embeddings and count from both ends.

    Raises:
        ValueError: If there is no such layer.
    """
    if not isinstance(count, int):
        return
    least, most = (-count - 1, count) if is_state else (0, count - 1)
    for layer in taken if isinstance(taken, list | tuple) else [taken]:
        if layer is not None and not (type(layer) is int and least <= layer <= most):
            raise ValueError(
                f"{place} must be from {least} to {most}, as the vision tower has {count} layers, got {layer!r}"
            )
