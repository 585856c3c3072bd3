"""Checks of a native checkpoint's settings without its weights: their ranges, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

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

_COUNTS = (
    *("hidden_size", "embed_dim", "intermediate_size", "out_hidden_size", "text_hidden_size", "vocab_size"),
    *("num_attention_heads", "num_key_value_heads", "num_heads", "head_dim"),
    *("n_group", "topk_group"),
    *("linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim"),
    *("linear_num_key_heads", "linear_num_value_heads"),
    *("max_position_embeddings", "original_max_position_embeddings", "num_position_embeddings"),
    *("num_channels", "in_channels", "in_chans", "temporal_patch_size", "spatial_merge_size", "merge_size"),
    *("spatial_pool_stride", "scale_factor", "window_size"),
)
_INDICES = (
    *("image_token_id", "video_token_id", "image_token_index", "video_token_index"),
    *("vision_start_token_id", "vision_end_token_id", "image_start_token_id", "image_end_token_id"),
    *("video_start_token_id", "video_end_token_id", "frame_start_token_id", "frame_end_token_id"),
    *("max_window_layers", "first_k_dense_replace", "decoder_sparse_step"),
    *("num_experts", "num_local_experts", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"),
    *("moe_intermediate_size", "shared_expert_intermediate_size"),
)
_POSITIVES = (
    *("rms_norm_eps", "layer_norm_eps", "rope_theta", "factor", "low_freq_factor", "high_freq_factor"),
    *("mlp_ratio", "tokens_per_second", "routed_scaling_factor"),
)
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
    "sliding_window": Rule("an integer of at least -1", lambda value: type(value) is int and value >= -1),
    "num_labels": Rule("an integer from 0 to 1000", lambda value: type(value) is int and 0 <= value <= 1000),
    "transformers_weights": NO_OTHER_WEIGHTS,
    "vision_feature_select_strategy": one_of(("default", "full")),
    "rope_type": one_of(("default", "mrope", "axial", *ROPE_INIT_FUNCTIONS)),
}
_AT_MOST = (
    *(("num_experts_per_tok", experts) for experts in ("num_experts", "num_local_experts", "n_routed_experts")),
    *(("topk_group", "n_group"), ("patch_size", "image_size")),
)
_DIVIDES = (
    *(("num_key_value_heads", "num_attention_heads"), ("linear_num_key_heads", "linear_num_value_heads")),
    ("n_group", "n_routed_experts"),
)


def check_ranges(settings: Mapping[str, Any], source: str) -> None:
    """Check that each setting of a native checkpoint is in its own range.

    All numbers must be finite; names without a rule may otherwise have any value.

    Args:
        settings: As in config.json; the parts of the model are objects inside it.
        source: Source of the settings, for messages.

    Raises:
        ValueError: If one breaks a rule; the message has source, name and value.
    """
    check_finite_numbers(settings, source)
    for name, part in _parts(settings):
        named = {f"{name}{key}": value for key, value in part.items()}
        check_by_rules(named, {f"{name}{key}": rule for key, rule in _RULES.items()}, source)


def check_finite_numbers(settings: Mapping[str, Any], source: str) -> None:
    """Check that all numbers in settings are finite, also inside lists and objects.

    Args:
        settings: As in a JSON file.
        source: Source of the settings, for messages.

    Raises:
        ValueError: If one is not; the message has source, name and value.
    """
    for name, part in _parts(settings):
        for key, value in part.items():
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, float) and not math.isfinite(one):
                    raise ValueError(f"{source}: {name}{key} must be a finite number, got {one}")


def check_agreement(settings: Mapping[str, Any], source: str) -> None:
    """Check that settings in their ranges agree with each other where shapes of weights do not reveal it.

    Args:
        settings: With the defaults of the family filled in.
        source: Source of the settings, for messages.

    Raises:
        ValueError: If two contradict each other; the message has source, names and values.
    """
    for name, part in _parts(settings):
        place = f"{source}: {name}"
        for small, large in _AT_MOST:
            if _are_counts(part, small, large) and part[small] > part[large]:
                raise ValueError(f"{place}{small}={part[small]} must be at most {name}{large}={part[large]}")
        for few, many in (*_DIVIDES, _heads(part)):
            if _are_counts(part, few, many) and part[many] % part[few]:
                raise ValueError(f"{place}{few}={part[few]} must divide {name}{many}={part[many]}")
        _check_rotary_sections(part, place)
        _check_window(part, place)
        levels = part.get("deepstack_visual_indexes")
        _check_layers(f"{place}deepstack_visual_indexes", levels, part.get("depth"), is_state=False)
    _check_tower(settings, source)


def _are_counts(part: Mapping[str, Any], *names: str) -> bool:
    return all(COUNT.holds(part.get(name)) for name in names)


def _heads(part: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of the number of heads of a vision tower and of the width that they share.

    In other parts the shapes of weights reveal both, or transformers compares them.
    """
    return "num_heads", "embed_dim" if "embed_dim" in part else "hidden_size"


def _check_rotary_sections(part: Mapping[str, Any], place: str) -> None:
    """Check that the sections of a rotary embedding of several axes share out what a head rotates.

    Interleaved sections need not: transformers gives what remains to the first axis, and ignores what is too much.

    Raises:
        ValueError: If they do not.
    """
    rope = part.get("rope_parameters") or {}
    sections = rope.get("mrope_section")
    if sections is None or not _are_counts(part, "hidden_size", "num_attention_heads"):
        return
    size = part.get("head_dim") or part["hidden_size"] // part["num_attention_heads"]
    pairs = int(size * (rope.get("partial_rotary_factor") or part.get("partial_rotary_factor") or 1)) // 2
    are_counts = isinstance(sections, list | tuple) and all(map(_INDEX.holds, sections))
    if rope.get("mrope_interleaved"):
        if not are_counts or len(sections) != 3:
            raise ValueError(f"{place}rope_parameters.mrope_section must be three integers, got {sections!r}")
    elif not are_counts or sum(sections) != pairs:
        raise ValueError(
            f"{place}rope_parameters.mrope_section must be integers with the sum {pairs}, the pairs of numbers that a "
            f"head of {size} rotates, got {sections!r}"
        )


def _check_window(part: Mapping[str, Any], place: str) -> None:
    """Check that a window of a vision tower holds a group of patches that are merged.

    Raises:
        ValueError: If it does not.
    """
    if not _are_counts(part, "window_size", "patch_size", "spatial_merge_size"):
        return
    group = part["patch_size"] * part["spatial_merge_size"]
    if part["window_size"] < group:
        raise ValueError(
            f"{place}window_size={part['window_size']} must be at least patch_size * spatial_merge_size = {group}"
        )


def _check_tower(settings: Mapping[str, Any], source: str) -> None:
    """Check what the whole model takes of its vision tower.

    Raises:
        ValueError: If the tower does not have it.
    """
    tower = settings.get("vision_config") or {}
    place = f"{source}: vision_feature_layer"
    _check_layers(place, settings.get("vision_feature_layer"), tower.get("num_hidden_layers"), is_state=True)
    stride = settings.get("spatial_pool_stride")
    if stride is not None and _are_counts(tower, "image_size", "patch_size"):
        side = tower["image_size"] // tower["patch_size"]
        if stride > side:
            raise ValueError(f"{source}: spatial_pool_stride={stride} must be at most {side}, the patches per side")
    kind = str(tower.get("model_type"))
    if settings.get("vision_feature_select_strategy") == "default" and kind.startswith("siglip"):
        raise ValueError(
            f"{source}: vision_feature_select_strategy must be full, as {kind} has no class token to leave out, got "
            "'default'"
        )
    for image, video in (("image_token_id", "video_token_id"), ("image_token_index", "video_token_index")):
        if settings.get(image) is not None and settings.get(image) == settings.get(video):
            raise ValueError(f"{source}: {image} and {video} must differ, got {settings[image]} for both")


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
