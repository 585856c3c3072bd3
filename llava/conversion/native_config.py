"""The native configuration of a LLaVA-NeXT checkpoint, and what the native class cannot express.

Source: https://huggingface.co/llava-hf/llava-onevision-qwen2-7b-ov-hf (config.json).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import SiglipVisionConfig

from llava.mm_utils import resolve_pinpoints
from llava.model.anyres import max_tiles_of
from llava.model.vision import tower_geometry

KEPT = "llava_config"
"""Setting of a native configuration that holds the whole original config.json, for the way back."""
TOKENIZER_LENGTH = "llava_tokenizer_length"
"""Setting of a native configuration: ids of the original tokenizer's files; those above were added."""
TEXT_SETTINGS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "vocab_size",
    "attention_dropout",
    "initializer_range",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "use_cache",
)
VISION_SETTINGS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "num_channels",
    "hidden_act",
    "layer_norm_eps",
)
_TRANSLATED = (
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "vision_config",
    "mm_vision_tower",
    "mm_hidden_size",
    "mm_projector_type",
    "mm_vision_select_layer",
    "mm_vision_select_feature",
    "mm_patch_merge_type",
    "mm_newline_position",
    "mm_spatial_pool_mode",
    "mm_use_im_start_end",
    "mm_use_im_patch_token",
    "image_aspect_ratio",
    "image_grid_pinpoints",
    "add_time_instruction",
    "force_sample",
    "tokenizer_padding_side",
)
_TILES_PER_SIDE = 6


def check_expressible(config: Any, source: str) -> None:
    """Check that the native class has the parts of a checkpoint.

    Args:
        config: The `LlavaQwenConfig`.
        source: Its source, for messages.

    Raises:
        ValueError: If the tower, projector or newline token is of another kind, or the weights are quantised.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{source}: quantised weights have other names: convert the checkpoint before quantising it")
    if not isinstance(tower_geometry(config), SiglipVisionConfig):
        raise ValueError(
            f"{source}: mm_vision_tower={config.mm_vision_tower!r} is not a SigLIP tower; only checkpoints with one "
            "can be converted: run this one with `llava_video`"
        )
    if config.mm_projector_type != "mlp2x_gelu":
        raise ValueError(
            f"{source}: mm_projector_type={config.mm_projector_type!r}, and the native class has mlp2x_gelu only: run "
            "this checkpoint with `llava_video`"
        )
    if "unpad" not in config.mm_patch_merge_type:
        raise ValueError(
            f"{source}: mm_patch_merge_type={config.mm_patch_merge_type!r} means that there is no newline token, and "
            "the native class always uses one: run this checkpoint with `llava_video`"
        )


def native_settings(
    original: Mapping[str, Any], config: Any, token_ids: Mapping[str, int], tokenizer_length: int, num_rows: int
) -> dict[str, Any]:
    """Return the content of the native config.json.

    Args:
        original: The content of the original one.
        config: The `LlavaQwenConfig` made of it.
        token_ids: Ids of "<image>" and "<video>".
        tokenizer_length: Number of ids in the original tokenizer's files.
        num_rows: Rows of the embeddings.
    """
    text = {name: original[name] for name in (*TEXT_SETTINGS, "rope_parameters") if original.get(name) is not None}
    geometry: Any = tower_geometry(config)  # `check_expressible` has seen that it is a SigLIP's
    vision = {name: getattr(geometry, name) for name in VISION_SETTINGS}
    layers = geometry.num_hidden_layers - 1  # LLaVA drops the last one
    pinpoints = native_pinpoints(original.get("image_grid_pinpoints"), geometry.image_size)
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "dtype": original.get("dtype") or original.get("torch_dtype") or "float32",
        "image_grid_pinpoints": pinpoints,
        "image_token_index": token_ids["<image>"],
        "mm_newline_position": config.mm_newline_position,
        "model_type": "llava_onevision",
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "text_config": {**text, "model_type": "qwen2", "vocab_size": num_rows},
        "tie_word_embeddings": config.tie_word_embeddings,
        "video_token_index": token_ids["<video>"],
        "vision_aspect_ratio": native_aspect_ratio(original.get("image_aspect_ratio"), pinpoints, geometry.image_size),
        "vision_config": {
            **vision, "model_type": "siglip_vision_model", "num_hidden_layers": layers, "vision_use_head": False
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        KEPT: dict(original),
        TOKENIZER_LENGTH: tokenizer_length,
    }  # fmt: skip


def native_pinpoints(pinpoints: Any, tile: int) -> list[list[int]]:
    """Return sizes of tiled images as (height, width), which LLaVA-NeXT lists as (width, height), in pixels."""
    if not pinpoints:
        sides = range(tile, (_TILES_PER_SIDE + 1) * tile, tile)
        return [[height, width] for height in sides for width in sides]
    return [[height, width] for width, height in resolve_pinpoints(pinpoints, tile)]


def native_aspect_ratio(mode: str | None, pinpoints: Sequence[Sequence[int]], tile: int) -> str:
    """Return `vision_aspect_ratio`: `mode` if it is `anyres_max_N`.

    Plain `anyres`, which never shrinks the features of an image, becomes a limit that no image reaches.

    Args:
        mode: The checkpoint's `image_aspect_ratio`.
        pinpoints: Sizes of tiled images, see `native_pinpoints`.
        tile: Side of a tile, in pixels.
    """
    if mode is not None and max_tiles_of(mode) is not None:
        return mode
    most = max((height // tile) * (width // tile) for height, width in pinpoints)
    return f"anyres_max_{most}" if mode == "anyres" else "anyres_max_9"


def limits(original: Mapping[str, Any], generation: Mapping[str, Any], config: Any) -> list[str]:
    """Say in a line each what the native class and its processor cannot express of a checkpoint.

    Args:
        original: The content of the original config.json.
        generation: The content of the original generation_config.json.
        config: The `LlavaQwenConfig`.
    """
    found = []
    if config.mm_newline_position != "one_token":
        found.append(
            f"mm_newline_position={config.mm_newline_position}: the native class puts one newline after a video; "
            "config.json keeps the setting for `stgridpool.compress`, which lays newlines out as in training"
        )
    if config.mm_spatial_pool_mode != "bilinear":
        found.append(f"mm_spatial_pool_mode={config.mm_spatial_pool_mode}: the native class pools bilinearly")
    if original.get("add_time_instruction"):
        found.append("add_time_instruction: the sentence with the frames' times is not in the chat template; write it")
    if original.get("force_sample"):
        found.append("force_sample: the processor takes all frames that it is given; sample them evenly beforehand")
    mode = original.get("image_aspect_ratio")
    if mode != "anyres" and max_tiles_of(mode or "") is None:
        found.append(f"image_aspect_ratio={mode}: the native class always cuts images into tiles")
    if config.mm_use_im_start_end:
        found.append("mm_use_im_start_end: the chat template puts no start and end tokens around images")
    if generation.get("repetition_penalty", 1.0) != 1.0:
        penalty = generation["repetition_penalty"]
        found.append(
            f"repetition_penalty={penalty}: LLaVA-NeXT applies it to the answer, generate() to the prompt, too"
        )
    found.append("preprocessing: the processor resizes with torchvision, not PIL; pixels differ by up to 2 of 255")
    unused = sorted(original.keys() - {*TEXT_SETTINGS, *_TRANSLATED})
    if unused:
        found.append(f"settings that are only kept for the way back, in {KEPT}: {', '.join(unused)}")
    return found
