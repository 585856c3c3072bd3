"""Prompts of a native model about videos that have been encoded and compressed before.

Letters: P positions of a prompt, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stgridpool.adapters.adapter import VIDEO, Adapter
from stgridpool.adapters.native_recipe import NativeRecipe
from stgridpool.adapters.native_video import NativeVideo, moved
from stgridpool.adapters.prompt import CompressedPrompt, write_prompt
from stgridpool.adapters.visual_runs import matched_runs
from stgridpool.model import Prompt

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


def messages_of(question: str, num_videos: int, system: str | None) -> list[dict[str, Any]]:
    """Return the turns of a question: a system prompt if there is one, and the user's turn, videos first."""
    content = [*({"type": "video"} for _ in range(num_videos)), {"type": "text", "text": question}]
    turns = [] if system is None else [{"role": SYSTEM, "content": [{"type": "text", "text": system}]}]
    return [*turns, {"role": USER, "content": content}]


def native_prompt(
    adapter: Adapter,
    model: Any,
    recipe: NativeRecipe,
    messages: Sequence[Mapping[str, Any]],
    videos: Sequence[NativeVideo],
    answer: str | None = None,
    positions: str = "reference",
) -> Prompt:
    """Write a prompt with the checkpoint's chat template.

    Args:
        adapter: The adapter for `model`.
        model: A native model of transformers.
        recipe: Turns text into ids.
        messages: The turns, see `messages_of`.
        videos: The videos in them, in order.
        answer: An answer to append, or None for a prompt that ends where the answer begins.
        positions: See `stgridpool.adapters.compress_inputs`.

    Raises:
        ValueError: If the template writes a different prompt when an answer follows.
    """
    text, num_answer, num_closing = recipe.text(messages), 0, 0
    records = [video.record for video in videos]
    if answer is not None:
        opened = text
        turn = {"role": ASSISTANT, "content": [{"type": "text", "text": answer}]}
        text = recipe.text([*messages, turn], opens_answer=False)
        if not text.startswith(opened + answer):
            raise ValueError(f"the chat template does not write an answer after {opened[-40:]!r}, but {text[-80:]!r}")
        length, before = (recipe.prompt(one, records)["input_ids"].shape[1] for one in (text, opened))
        num_answer = length - before
        num_closing = length - recipe.prompt(opened + answer, records)["input_ids"].shape[1]
    device = model.get_input_embeddings().weight.device
    written = recipe.prompt(text, records)
    inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in written.items()}
    runs = matched_runs(adapter, model, inputs, [video.compressed.run.visual for video in videos], VIDEO)
    visuals = [replace(video.compressed, run=run) for video, run in zip(videos, runs, strict=True)]
    prompt = write_prompt(adapter, model, inputs, visuals, positions)
    return _as_prompt(adapter, model, prompt, videos, num_answer, num_closing)


def _as_prompt(
    adapter: Adapter,
    model: Any,
    prompt: CompressedPrompt,
    videos: Sequence[NativeVideo],
    num_answer: int,
    num_closing: int,
) -> Prompt:
    """Cut a prompt of one row into text before its video, the video with all text inside it, and text after it."""
    embeds: Tensor = prompt.inputs["inputs_embeds"][0]
    spans = prompt.spans[0]
    placed = []
    for video, span in zip(videos, spans, strict=True):
        start = int(span.tokens.min())
        placed.append((start, replace(video, placed=moved(span, -start))))
    pieces: tuple[Tensor, ...] = (embeds,)
    if len(spans) == 1:
        first = placed[0][0]
        # Where marks let tokens see later ones, as in Molmo2, the last marked one ends the video, too.
        marked = [prompt.inputs[name][0].nonzero().flatten() for name in adapter.row_inputs if name in prompt.inputs]
        end = int(torch.cat([spans[0].tokens, spans[0].newlines, *marked]).max()) + 1
        pieces = (embeds[:first], embeds[first:end], embeds[end:])
    taken = {"input_ids", "inputs_embeds"}
    inputs = {name: value for name, value in prompt.inputs.items() if name not in taken and isinstance(value, Tensor)}

    def hand_over(count: int) -> AbstractContextManager[None]:
        return adapter.prefilling(model, replace(prompt, visual_mask=prompt.visual_mask[:, :count]))

    return Prompt(prompt.inputs["input_ids"][0], pieces, tuple(placed), num_answer, num_closing, inputs, hand_over)
