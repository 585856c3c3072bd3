"""The tensors that a configuration describes: their names, their shapes, and the settings that determine each axis."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import SiglipVisionConfig

from llava.model.projector import DOWNSAMPLING, build_projector
from llava.model.settings import check_tower_settings
from llava.model.vision import tower_geometry

TOWER_KEY = "model.vision_tower."
_ENCODER = f"{TOWER_KEY}vision_tower."
_PROJECTOR = re.compile(r"model\.mm_projector\.(?:(\d+)\.)?weight")
# Shapes of a layer; a letter is an axis: h hidden, i inner, q queries, k keys and values, w the tower's width.
_DECODER_LAYER = {
    "input_layernorm.weight": "h",
    "post_attention_layernorm.weight": "h",
    "self_attn.q_proj.weight": "qh",
    "self_attn.q_proj.bias": "q",
    "self_attn.k_proj.weight": "kh",
    "self_attn.k_proj.bias": "k",
    "self_attn.v_proj.weight": "kh",
    "self_attn.v_proj.bias": "k",
    "self_attn.o_proj.weight": "hq",
    "mlp.gate_proj.weight": "ih",
    "mlp.up_proj.weight": "ih",
    "mlp.down_proj.weight": "hi",
}
_TOWER_LAYER = {
    **{f"{norm}.{part}": "w" for norm in ("layer_norm1", "layer_norm2") for part in ("weight", "bias")},
    **{f"self_attn.{name}_proj.weight": "ww" for name in ("q", "k", "v", "out")},
    **{f"self_attn.{name}_proj.bias": "w" for name in ("q", "k", "v", "out")},
    "mlp.fc1.weight": "iw",
    "mlp.fc1.bias": "i",
    "mlp.fc2.weight": "wi",
    "mlp.fc2.bias": "w",
}


@dataclass(frozen=True)
class Axis:
    """An axis of a tensor.

    Attributes:
        length: Its length by the configuration; None for any length.
        settings: The settings that determine it, as `name=value`.
    """

    length: int | None
    settings: str


Shapes = dict[str, tuple[Axis, ...]]


def plain_name(name: str) -> str:
    """Return the name of a tensor without the level that transformers removed from vision towers."""
    return name.replace(".vision_tower.vision_model.", ".vision_tower.")


def head_size(config: Any) -> int:
    """Return the width of an attention head in the language model."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def decoder_shapes(config: Any) -> Shapes:
    """Describe the tensors of the language model, its head, and the newline token if there is one."""
    size = head_size(config)
    heads = ("num_attention_heads", *(["head_dim"] if getattr(config, "head_dim", None) else []))
    axes = {
        "h": Axis(config.hidden_size, _named(config, "hidden_size")),
        "i": Axis(config.intermediate_size, _named(config, "intermediate_size")),
        "q": Axis(config.num_attention_heads * size, _named(config, *heads)),
        "k": Axis(config.num_key_value_heads * size, _named(config, "num_key_value_heads", *heads)),
    }
    rows = (Axis(config.vocab_size, _named(config, "vocab_size")), axes["h"])
    shapes: Shapes = {"model.embed_tokens.weight": rows, "lm_head.weight": rows, "model.norm.weight": (axes["h"],)}
    if "unpad" in config.mm_patch_merge_type:
        shapes["model.image_newline"] = (axes["h"],)
    return shapes | _layers("model.layers", config.num_hidden_layers, _DECODER_LAYER, axes)


def projector_shapes(config: Any, names: Iterable[str], source: str) -> Shapes:
    """Describe the tensors of the projector.

    Args:
        config: The configuration.
        names: Plain names of the tensors in the weight files.
        source: Source of the configuration, for messages.

    Raises:
        ValueError: If `mm_projector_type` is unknown, or the files contain another number of linear layers.
    """
    kind = config.mm_projector_type
    if kind in DOWNSAMPLING:
        return _downsampling_shapes(config)
    many = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    stored = [match.group(1) for match in map(_PROJECTOR.fullmatch, names) if match]
    count = int(many.group(1)) if many else {"linear": 1, "identity": 0}.get(kind)
    if count is None or kind.startswith("mlp0"):
        known = ", ".join(["linear", "identity", *DOWNSAMPLING])
        raise ValueError(f"{source}: mm_projector_type must be {known} or mlpNx_gelu, got {kind!r}")
    if count != len(stored):
        raise ValueError(
            f"{source}: mm_projector_type={kind} contradicts the weights, which hold {len(stored)} linear layers of "
            f"model.mm_projector and would be {count}"
        )
    hidden = Axis(config.hidden_size, _named(config, "hidden_size"))
    shapes: Shapes = {}
    for index in range(count):
        prefix = f"model.mm_projector.{2 * index}" if many else "model.mm_projector"  # GELUs take the odd numbers
        inputs = _tower_width(config) if index == 0 else hidden
        shapes |= {f"{prefix}.weight": (hidden, inputs), f"{prefix}.bias": (hidden,)}
    return shapes


def _downsampling_shapes(config: Any) -> Shapes:
    width = _tower_width(config)
    settings = f"mm_projector_type={config.mm_projector_type}, {_named(config, 'hidden_size')}, {width.settings}"
    with torch.device("meta"):
        projector = build_projector(config.mm_projector_type, width.length or 0, config.hidden_size)
    return {
        f"model.mm_projector.{name}": tuple(Axis(length, settings) for length in tensor.shape)
        for name, tensor in projector.state_dict().items()
    }


def tower_shapes(config: Any, names: Iterable[str], source: str) -> Shapes | None:
    """Describe the tensors of a SigLIP or CLIP tower; None for OpenCLIP, whose tensors only open_clip knows.

    Args:
        config: The configuration.
        names: Plain names of the tensors in the weight files.
        source: Source of the configuration, for messages.

    Raises:
        ValueError: If the geometry is invalid, or the files contain another number of layers.
    """
    geometry = tower_geometry(config)
    if geometry is None:
        return None
    place = _tower_place(config)
    check_tower_settings(geometry, f"{source}: {place.rstrip('. ')}")
    is_siglip = isinstance(geometry, SiglipVisionConfig)
    count = geometry.num_hidden_layers - is_siglip  # LLaVA drops SigLIP's last layer
    pattern = re.compile(rf"{re.escape(_ENCODER)}encoder\.layers\.(\d+)\.")
    stored = {int(match.group(1)) for match in map(pattern.match, names) if match}
    if stored and count != max(stored) + 1:
        raise ValueError(
            f"{source}: {place}num_hidden_layers={geometry.num_hidden_layers} contradicts the weights, which hold "
            f"{max(stored) + 1} layers of {_ENCODER}encoder: it must be {max(stored) + 1 + is_siglip}"
        )
    axes = {
        "w": Axis(geometry.hidden_size, f"{place}hidden_size={geometry.hidden_size}"),
        "i": Axis(geometry.intermediate_size, f"{place}intermediate_size={geometry.intermediate_size}"),
    }
    layers = _layers(f"{_ENCODER}encoder.layers", count if stored else 0, _TOWER_LAYER, axes)
    return _tower_ends(geometry, axes["w"], place, is_siglip) | layers


def _tower_ends(geometry: Any, width: Axis, place: str, is_siglip: bool) -> Shapes:
    side = Axis(geometry.patch_size, f"{place}patch_size={geometry.patch_size}")
    channels = Axis(geometry.num_channels, f"{place}num_channels={geometry.num_channels}")
    patches = (geometry.image_size // geometry.patch_size) ** 2
    positions = Axis(
        patches if is_siglip else patches + 1,
        f"{place}image_size={geometry.image_size}, {place}patch_size={geometry.patch_size}",
    )
    embeddings: Shapes = {
        "embeddings.patch_embedding.weight": (width, channels, side, side),
        "embeddings.position_embedding.weight": (positions, width),
    }
    one_axis = ["post_layernorm.weight", "post_layernorm.bias"]
    if is_siglip:
        one_axis += ["embeddings.patch_embedding.bias"]
    else:
        one_axis += ["embeddings.class_embedding", "pre_layrnorm.weight", "pre_layrnorm.bias"]
    ends = embeddings | dict.fromkeys(one_axis, (width,))
    return {_ENCODER + name: axes for name, axes in ends.items()}


def _tower_width(config: Any) -> Axis:
    geometry, count = tower_geometry(config), config.features_per_patch
    if geometry is None:
        return Axis(config.mm_hidden_size, f"mm_hidden_size={config.mm_hidden_size}")
    times = f" ({count} scales)" if count > 1 else ""
    return Axis(count * geometry.hidden_size, f"{_tower_place(config)}hidden_size={geometry.hidden_size}{times}")


def _tower_place(config: Any) -> str:
    """Return the prefix of the names of a tower's settings in messages."""
    return "vision_config." if config.vision_config else f"{config.mm_vision_tower} "


def _named(config: Any, *names: str) -> str:
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)


def _layers(prefix: str, count: int, parts: Mapping[str, str], axes: Mapping[str, Axis]) -> Shapes:
    return {
        f"{prefix}.{index}.{part}": tuple(axes[letter] for letter in letters)
        for index in range(count)
        for part, letters in parts.items()
    }
