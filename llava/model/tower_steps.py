"""Steps inside a vision tower: whole frames are merged or dropped after a layer, and later layers run on the rest.

The tower runs from step to step, each time in batches of frames: a step sees the output of its layer for all frames of
the video. No hooks are needed, since layers are called one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from llava.model.tower import TowerParts, VisionTower
from stgridpool.compressor import EncoderLayer, Step, compress_steps
from stgridpool.evidence import Evidence, FrameVectors, Need
from stgridpool.frame_evidence import frame_weights
from stgridpool.video_tokens import VideoTokens

InBatches = Callable[[Callable[[torch.Tensor], tuple[torch.Tensor, ...]], torch.Tensor], tuple[torch.Tensor, ...]]
"""Applies a function to all images of a tensor, a batch at a time."""


def check_steps(tower: VisionTower, steps: Sequence[Step]) -> None:
    """Check that a tower has the layers that steps act after.

    Raises:
        ValueError: If it has not, or its layers cannot be told.
    """
    parts = tower.parts()
    for step in steps:
        if not isinstance(step.place, EncoderLayer):
            continue
        if parts is None:
            raise ValueError(
                f"{step.compressor!r} acts in the vision tower, but {tower.name} is not a SigLIP or CLIP tower"
            )
        if step.place.layer < -len(parts.layers):
            raise ValueError(
                f"{step.compressor!r} acts after {step.place}, and {tower.name} runs {len(parts.layers)} layers: "
                f"choose layers from {-len(parts.layers)} to -1"
            )


def through_tower(
    tower: VisionTower, pixels: torch.Tensor, steps: Sequence[Step], needs: Collection[Need], in_batches: InBatches
) -> tuple[torch.Tensor, Evidence]:
    """Encode the frames of a video, with steps after some layers.

    Evidence is computed from the frames that a layer sees, and then follows the frames through later steps.

    Args:
        tower: The tower.
        pixels: The frames (T, 3, S, S).
        steps: At least one, all at an `EncoderLayer`, in order.
        needs: The evidence to compute.
        in_batches: Runs the tower.

    Returns:
        Features (T', n*n, C) of the frames left, and the evidence about them, with what steps leave behind.

    Raises:
        ValueError: If the tower cannot compute some of the evidence, or a step does not leave whole frames.
    """
    parts = _parts(tower)
    asked = [need for need in dict.fromkeys(needs) if not need.made_by_steps]
    (hidden,) = in_batches(lambda batch: (parts.begin(tower.placed(batch)),), pixels)
    found: Evidence = {}
    start, depth = 0, len(parts.layers)
    for step in steps:
        end = depth + 1 + step.place.layer if isinstance(step.place, EncoderLayer) else depth
        own = [need for need in asked if start <= _layer(need, depth) < end]
        hidden, more = _run(tower, parts.layers[start:end], own, hidden, in_batches)
        hidden, found = _merged(step, hidden, {**found, **more})
        start = end
    own = [need for need in asked if _layer(need, depth) >= start]
    features, more = _run(tower, parts.layers[start:], own, hidden, in_batches, parts.finish)
    return features, {**found, **more}


def _parts(tower: VisionTower) -> TowerParts:
    parts = tower.parts()
    if parts is None:
        raise ValueError(f"the layers of {tower.name} cannot be told: a SigLIP or CLIP tower is needed")
    return parts


def _layer(need: Need, depth: int) -> int:
    """Return the layer, from 0, that evidence is computed from; `depth` for the features without other tokens."""
    layer = getattr(need, "layer", None)
    if need == FrameVectors("class") or layer == 0:  # it takes the class token, which features may lack
        return depth - 1
    return depth if layer is None else depth + int(layer)


def _run(
    tower: VisionTower,
    layers: Sequence[torch.nn.Module],
    needs: Sequence[Need],
    hidden: torch.Tensor,
    in_batches: InBatches,
    finish: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden,
) -> tuple[torch.Tensor, Evidence]:
    """Run some layers on hidden states (T, L, C), and compute evidence from them."""

    def encode(batch: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            batch = layer(batch, attention_mask=None)
        return finish(batch)

    def collect(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, evidence = tower.evidence().collect(lambda: encode(batch), needs)
        return output, *(evidence[need] for need in needs)

    output, *found = in_batches(collect, hidden)
    return output, dict(zip(needs, found, strict=True))


def _merged(step: Step, hidden: torch.Tensor, found: Evidence) -> tuple[torch.Tensor, Evidence]:
    """Apply a step to hidden states (T, L, C), and let the evidence about frames follow."""
    frames, length, _ = hidden.shape
    made = {need: value for need, value in found.items() if need.made_by_steps}
    tokens = VideoTokens(hidden.flatten(0, 1), (frames, 1, length))
    left, plan, left_behind = compress_steps([step], tokens, made)
    if left.cell is not None or left.shape[1:] != (1, length):
        raise ValueError(f"{step.compressor!r} must leave whole frames of {length} tokens after {step.place}")
    weights = frame_weights(plan, tokens.shape)
    weights = weights / weights.sum(1, keepdim=True)
    follows = dict(left_behind)
    for need, value in found.items():
        if not need.made_by_steps:
            rows = weights @ value.unflatten(0, (frames, -1)).flatten(1)
            follows[need] = rows.reshape(-1, *value.shape[1:])
    return left.features.unflatten(0, (left.shape[0], length)), follows
