"""Qwen3-VL, dense and with experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.adapters.adapter import EncodedVisual
from stgridpool.adapters.prompt import CompressedPrompt
from stgridpool.adapters.qwen3_5 import Qwen3_5Adapter


class Qwen3VLAdapter(Qwen3_5Adapter):
    """Qwen3-VL: prompts and positions are those of Qwen3.5, and DeepStack levels enter the first layers.

    A plan that is applied to the tokens is applied to their levels, too. A compressor inside the language model may act
    once all levels have been added.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl", "qwen3_vl_moe")

    def encoded(self, output: Any, shapes: Sequence[tuple[int, int, int]]) -> list[EncodedVisual]:
        """Take tokens and levels from the output of the vision part; 5.17 has one tensor per level for all visuals."""
        sizes = [frames * rows * columns for frames, rows, columns in shapes]
        levels = [level.split(sizes) if isinstance(level, Tensor) else level for level in output.deepstack_features]
        return [
            EncodedVisual(rows.unflatten(0, shape), levels=tuple(level[number] for level in levels))
            for number, (rows, shape) in enumerate(zip(output.pooler_output, shapes, strict=True))
        ]

    def first_layer(self, model: Any) -> int:
        """Return the layer after the last DeepStack level."""
        return len(model.config.vision_config.deepstack_visual_indexes)

    @contextmanager
    def prefilling(self, model: Any, prompt: CompressedPrompt) -> Iterator[None]:
        """Add the DeepStack levels of the videos to those of images that the model adds itself."""
        decoder, waiting = model.get_decoder(), [prompt]

        def hand_over(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
            return (args, kwargs | _levels(waiting.pop(), kwargs)) if waiting else None

        handle = decoder.register_forward_pre_hook(hand_over, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _levels(prompt: CompressedPrompt, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the decoder's inputs for DeepStack; beams repeat each prompt."""
    if not prompt.levels:
        return {}
    batch = kwargs["inputs_embeds"].shape[0]
    mask, beams = prompt.visual_mask, batch // len(prompt.visual_mask)
    mask = mask.repeat_interleave(beams, dim=0)
    sizes = prompt.visual_mask.sum(dim=1).tolist()
    levels = [torch.cat([row for row in level.split(sizes) for _ in range(beams)]) for level in prompt.levels]
    images = kwargs.get("visual_pos_masks")
    if images is None:
        return {"visual_pos_masks": mask, "deepstack_visual_embeds": levels}
    device = mask.device  # the parts of a model may be on several devices; the decoder moves what it gets
    images = images.to(device)
    every, joined = images | mask, []
    for own, other in zip(levels, kwargs["deepstack_visual_embeds"], strict=True):
        rows = own.new_zeros(*every.shape, own.shape[-1], device=device)
        rows[images], rows[mask] = other.to(rows), own.to(device)
        joined.append(rows[every])
    return {"visual_pos_masks": every, "deepstack_visual_embeds": joined}
