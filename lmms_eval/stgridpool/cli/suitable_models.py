"""On which kinds of models a method runs: what it needs against what they offer."""

from collections.abc import Collection
from typing import Any

import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig

from llava.model.tower import ClipTower, SiglipTower, VisionTower
from stgridpool import Need, build_compressor


def suitable_models(name: str) -> dict[str, str]:
    """Say for each kind of model whether the method called `name` runs there with its default options.

    Evidence about the question and attention inside the language model are offered by every model, so that only the
    vision tower decides.

    Returns:
        "yes", or what is missing and how to get it, by kind of model.
    """
    needs = build_compressor(name).needs
    return {kind: _answer(needs, tower) for kind, tower in _towers().items()}


def _towers() -> dict[str, VisionTower]:
    """Build a small tower of each kind, without weights."""
    sizes: dict[str, Any] = dict.fromkeys(("hidden_size", "intermediate_size"), 8)
    sizes |= {"num_hidden_layers": 32, "num_attention_heads": 2}
    with torch.device("meta"):
        return {
            "LLaVA-Video, LLaVA-OneVision": SiglipTower("SigLIP", SiglipVisionConfig(**sizes)),
            "LLaVA on CLIP": ClipTower("CLIP", CLIPVisionConfig(**sizes), -2, "patch"),
        }


def _answer(needs: Collection[Need], tower: VisionTower) -> str:
    try:
        tower.check_needs(needs)
    except ValueError as error:
        return f"no: {error}"
    return "yes"
