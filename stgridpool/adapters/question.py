"""The question of a prompt: the text after its videos, as methods that look at the question read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stgridpool.adapters.adapter import IMAGE, VIDEO, Adapter, Inputs
from stgridpool.adapters.places import QUESTION
from stgridpool.adapters.visual_runs import VisualRun
from stgridpool.evidence import Evidence

_MARKS = tuple(
    f"{kind}_{end}_token_id"
    for kind in ("vision", "image", "low_res_image", "video", "frame")
    for end in ("start", "end")
)


def question_evidence(adapter: Adapter, model: Any, inputs: Inputs, runs: Sequence[VisualRun]) -> Evidence:
    """Return the embeddings (n, D) of the text after the last video of a prompt, up to the end of the user's turn.

    In a prompt without videos it is the text after the last image. Placeholders of images and marks around visuals and
    frames are left out.

    Args:
        adapter: The adapter for `model`.
        model: A native model of transformers.
        inputs: The output of its processor.
        runs: The visuals of one prompt, at least one.

    Raises:
        ValueError: If no text follows.
    """
    ids: Tensor = inputs["input_ids"][runs[0].row]
    is_text = ~_is_visual(adapter, model, inputs, runs)
    is_text[: _start(model, ids, runs)] = False
    mask = inputs.get("attention_mask")
    if mask is not None:
        is_text &= mask[runs[0].row].bool()
    text = ids[is_text]
    closing = torch.isin(text, _end_ids(model, text)).nonzero().flatten()
    text = text[: int(closing[0])] if len(closing) else text
    if not len(text):
        raise ValueError("a method that looks at the question needs text after the last video or image, got none")
    return {QUESTION: model.get_input_embeddings()(text)}


def _start(model: Any, ids: Tensor, runs: Sequence[VisualRun]) -> int:
    """Return the position after the last video and the time stamp of its last frame, or after the last image."""
    videos = [run for run in runs if run.kind == VIDEO]
    start = max(int(torch.cat([run.slots, run.tail]).max()) for run in videos or runs) + 1
    closing = getattr(model.config, "video_end_token_id", None)
    if not videos or closing is None:
        return start
    closed = (ids[start:] == closing).nonzero().flatten()
    return start + int(closed[0]) + 1 if len(closed) else start


def _is_visual(adapter: Adapter, model: Any, inputs: Inputs, runs: Sequence[VisualRun]) -> Tensor:
    """Tell which positions of a prompt are placeholders or marks: (L,) bool.

    A mark is named by the configuration, or is what stands beside every run of placeholders.
    """
    row = runs[0].row
    ids: Tensor = inputs["input_ids"][row]
    is_slot = adapter.slots(model, inputs, VIDEO)[row] | adapter.slots(model, inputs, IMAGE)[row]
    named = [getattr(model.config, name, None) for name in _MARKS]
    is_mark = torch.isin(ids, ids.new_tensor([mark for mark in named if mark is not None]))
    if adapter.is_one_run:
        return is_slot | is_mark
    edges = torch.cat([is_slot[:1].int(), is_slot.int().diff()])
    in_front, behind = (edges == 1).nonzero().flatten() - 1, (edges == -1).nonzero().flatten()
    for beside in (in_front, behind):
        if len(beside) > 1 and bool((ids[beside] == ids[beside[0]]).all()):
            is_mark[beside] = True
    return is_slot | is_mark


def _end_ids(model: Any, like: Tensor) -> Tensor:
    """Return the ids that end a turn."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return like.new_tensor([] if ends is None else [ends] if isinstance(ends, int) else list(ends))
