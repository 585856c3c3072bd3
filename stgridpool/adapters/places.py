"""What a method may do in a native model, as far as it is known before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stgridpool.adapters.names import BOTH_WAYS, LINEAR
from stgridpool.compressor import Compressor, early_steps
from stgridpool.evidence import (
    AttentionReceived,
    FrameVectors,
    QueryAttention,
    Question,
    RotaryBias,
    TowerKeys,
    check_offered,
)

QUESTION = Question("decoder")
"""The only text of the question that native models offer."""

IN_DECODER = (QueryAttention, RotaryBias)
"""Evidence that a language model offers."""

_FRAMES = FrameVectors("mean")


def check_places(compressor: Compressor) -> None:
    """Check that a method acts on features or inside the language model, as methods for native models must.

    Raises:
        ValueError: If it acts before the features.
    """
    if early_steps(compressor):
        raise ValueError(
            f"{compressor!r} acts on frames or in the vision tower, which only checkpoints in LLaVA-NeXT's format "
            "allow: choose another method for native models"
        )


def check_parts(compressor: Compressor) -> None:
    """Check that a method asks for no part that native models lack.

    Raises:
        ValueError: If it does.
    """
    for need in compressor.needs:
        if isinstance(need, FrameVectors) and need != _FRAMES:
            raise ValueError(f"{need!r} asks for a part that native models do not have; they offer {_FRAMES!r}")
        if isinstance(need, Question) and need != QUESTION:
            raise ValueError(f"{compressor!r} needs {need!r}; native models have no text half of a vision tower")


def both_ways(compressor: Compressor, model_type: str) -> str:
    """Say that a method cannot act inside a language model whose visual tokens attend in both directions."""
    return (
        f"{compressor!r} acts inside the language model, which it cannot in {model_type}: "
        "there visual tokens attend to one another in both directions. Choose a method that acts before it"
    )


def check_settings(compressor: Compressor, settings: Mapping[str, Any]) -> None:
    """Check a method for a native checkpoint of which nothing is known but its settings.

    Args:
        compressor: The method.
        settings: Those of its config.json.

    Raises:
        ValueError: If the model cannot run it; the message says why.
    """
    depth = (settings.get("text_config") or settings).get("num_hidden_layers")
    compressor = compressor if depth is None else compressor.for_depth(depth)
    check_places(compressor)
    check_offered(compressor.needs, {FrameVectors, AttentionReceived, TowerKeys, Question, *IN_DECODER}, compressor)
    check_parts(compressor)
    kind = settings["model_type"]
    layers = [step.place for step in compressor.steps() if isinstance(step.place, int)]
    if not layers:
        return
    if kind in BOTH_WAYS:
        raise ValueError(both_ways(compressor, kind))
    listed = (settings.get("text_config") or settings).get("layer_types") or ()
    if (kind in LINEAR and not listed) or set(listed) - {"full_attention"}:
        raise ValueError(
            f"{compressor!r} acts inside the language model, which needs full attention in every layer, and {kind} has "
            "others: choose a method that acts before it"
        )
    levels = (settings.get("vision_config") or {}).get("deepstack_visual_indexes") or ()
    if kind.startswith("qwen3_vl") and min(layers) < len(levels):
        raise ValueError(
            f"{compressor!r} acts before layer {min(layers)} of the language model, and levels of the vision tower "
            f"enter {kind} up to layer {len(levels)}: choose that or a later one in the options"
        )
