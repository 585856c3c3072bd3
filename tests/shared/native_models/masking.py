"""The oracle for pruned prompts: the whole prompt, in which nobody looks at the tokens that were dropped."""

from __future__ import annotations

from torch import Tensor

from stgridpool.adapters import CompressedPrompt


def masking(whole: CompressedPrompt, pruned: CompressedPrompt) -> dict[str, Tensor]:
    """Return the mask and the positions with which the whole prompts give the logits of the pruned ones.

    Args:
        whole: Prompts of all tokens.
        pruned: The same prompts, from which a method has dropped tokens.
    """
    mask = whole.inputs["attention_mask"].clone()
    for row, visuals in enumerate(pruned.visuals):
        for visual in visuals:
            slots = visual.run.slots
            mask[row, slots[slots >= 0]] = 0
            mask[row, slots[visual.place]] = 1
    positions = whole.inputs["position_ids"]
    if "reassign" in pruned.positions:
        positions = (mask.cumsum(1) - 1).clamp_min(0).expand_as(positions)
    return {"attention_mask": mask, "position_ids": positions}
