"""On which kinds of models a method runs: what it needs against what they offer."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import torch
from transformers import CONFIG_MAPPING, CLIPVisionConfig, SiglipVisionConfig

from llava.model.tower import ClipTower, SiglipTower, VisionTower
from stgridpool import Compressor, Need, build_compressor
from stgridpool.adapters.adapter import Adapter
from stgridpool.adapters.families import FAMILIES
from stgridpool.adapters.places import IN_DECODER, QUESTION
from stgridpool.compressor import early_steps
from stgridpool.evidence import AttentionReceived, FrameVectors, Question, TowerKeys, check_offered


def suitable_models(name: str) -> dict[str, str]:
    """Say for each kind of model whether the method called `name` runs there with its default options.

    In LLaVA-NeXT's format the vision tower alone decides, as those models offer everything else.

    Returns:
        "yes", or what is missing and how to get it, by kind of model; native families by their `model_type`.
    """
    method = build_compressor(name)
    original = {kind: _answer(method.needs, tower) for kind, tower in _towers().items()}
    native = {", ".join(family.model_types): native_answer(method, family) for family in FAMILIES}
    return original | native


def native_answer(method: Compressor, family: type[Adapter]) -> str:
    """Say whether a method runs on a family of native models: "yes", or what is missing."""
    if early_steps(method):
        return "no: it acts on frames or in the vision tower, which native models do not allow"
    layers = [step.place for step in method.steps() if isinstance(step.place, int)]
    if layers and (problem := _problem_inside(family, min(layers))):
        return f"no: it acts inside the language model, {problem}"
    watched = {AttentionReceived, TowerKeys} if family.tower_name is not None else set()
    try:
        check_offered(method.needs, {FrameVectors, Question, *IN_DECODER, *watched}, method)
    except ValueError as error:
        return f"no: {error}"
    others = [need for need in method.needs if isinstance(need, FrameVectors | Question)]
    missing = [need for need in others if need not in (FrameVectors("mean"), QUESTION)]
    return f"no: native models do not have the part for {missing[0]!r}" if missing else "yes"


def _problem_inside(family: type[Adapter], layer: int) -> str:
    """Say why no method can act before a decoder layer of a family with its default settings; "" if one can."""
    if family.attends_both_ways:
        return "where visual tokens of this family attend in both directions"
    settings = CONFIG_MAPPING[family.model_types[0]]()
    if not set(getattr(settings.get_text_config(), "layer_types", None) or ()) <= {"full_attention"}:
        return "most of whose layers are linear attention in this family"
    first = family().first_layer(SimpleNamespace(config=settings))
    return f"where this family allows it from layer {first} on: choose it in the options" if layer < first else ""


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
