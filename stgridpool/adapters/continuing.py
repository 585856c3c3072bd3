"""Inputs of manual forwards that continue compressed prompts from their cache.

Letters: B prompts, L positions before and M after compression, n new positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stgridpool.adapters.prompt import CompressedPrompt


def following(prompt: CompressedPrompt, length: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a forward with the positions and the mask of the compressed prompts.

    Args:
        prompt: The compressed prompts.
        length: Number of positions so far, M and those generated, even if a step at layer 0 removed some.
        arguments: The arguments; a mask may cover the original prompts or the compressed ones.

    Raises:
        ValueError: If the mask covers neither.
    """
    new = arguments["input_ids"] if arguments.get("input_ids") is not None else arguments["inputs_embeds"]
    changed = dict(arguments)
    changed["attention_mask"] = _mask(prompt, length, new, arguments.get("attention_mask"))
    if changed.get("position_ids") is None:
        behind = length - prompt.visual_mask.shape[1]
        steps = prompt.next_position.new_tensor(range(behind, behind + new.shape[1]))
        positions = prompt.next_position[:, None] + steps
        changed["position_ids"] = positions if prompt.inputs["position_ids"].dim() == 2 else positions.expand(3, -1, -1)
    return changed


def _mask(prompt: CompressedPrompt, length: int, new: Tensor, given: Tensor | None) -> Tensor:
    """Return the mask (B, M + n) of all positions; compressed prompts may be padded where the original ones are not."""
    own: Tensor = prompt.inputs["attention_mask"]
    before, after = prompt.dense_ids.shape[1], own.shape[1]
    added = length - after + new.shape[1]
    if given is None:
        given = own.new_ones(len(own), after + added)
    if given.shape[1] not in (before + added, after + added):
        raise ValueError(
            f"attention_mask must cover {before + added} positions, the original prompts and all tokens after them, "
            f"got {given.shape[1]}"
        )
    return torch.cat([own, given[:, given.shape[1] - added :].to(own)], dim=1)
