"""Processor outputs for prompts of text, images and videos, called as the plug-in calls every processor."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.video_utils import VideoMetadata

from native_models.families import build

Pixels = NDArray[np.uint8]
STRIDE = 12  # source frames from one chosen frame to the next
FPS = 24.0  # of the source, so frames are half a second apart
_MADE: dict[tuple[ProcessorMixin, str | None, bytes], BatchFeature] = {}


def make_frames(num_frames: int, height: int = 24, width: int = 40, seed: int = 0) -> Pixels:
    """Draw frames (T, h, w, 3) that differ from each other."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def make_inputs(processor: ProcessorMixin, *prompts: Sequence[str | Pixels]) -> BatchFeature:
    """Return a batch, ready for the model, padded on the left.

    Args:
        processor: Of any family.
        *prompts: One for each row: texts, images (h, w, 3) and videos (T, h, w, 3), in the order of the prompt.
    """
    key = processor, processor.chat_template, pickle.dumps(prompts)
    if key not in _MADE:  # processors take longer than most tests' models
        _MADE[key] = _processed(processor, prompts)
    return copy.deepcopy(_MADE[key])


def _processed(processor: ProcessorMixin, prompts: Sequence[Sequence[str | Pixels]]) -> BatchFeature:
    arguments: dict[str, Any] = {}
    kinds = {_kind(part) for prompt in prompts for part in prompt}
    if "image" in kinds:
        arguments["images"] = _of_kind("image", prompts)
    if "video" in kinds:
        videos = _of_kind("video", prompts)
        metadata = [[_metadata(video) for video in row] for row in videos]
        arguments |= {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}
    if type(processor).__name__ != "SmolVLMProcessor":  # it alone wants a list per prompt
        for name in arguments.keys() - {"do_sample_frames"}:
            arguments[name] = list(chain.from_iterable(arguments[name]))
    texts = [make_text(processor, prompt) for prompt in prompts]
    return processor(text=texts, return_tensors="pt", padding=True, **arguments)


def load_with(name: str, *prompts: Sequence[str | Pixels]) -> tuple[PreTrainedModel, BatchFeature]:
    """Return the model of a family, and prompts as `make_inputs` makes them with its processor."""
    model, processor = build(name)
    return model, make_inputs(processor, *prompts)


def make_clips(*prompts: Sequence[str | Pixels]) -> list[list[tuple[str, int]]]:
    """Return `stgridpool.adapters.adapter.Clips` of the prompts: a run for each image and for each frame of a video."""
    return [
        [(_kind(part), len(part) if _kind(part) == "video" else 1) for part in prompt if _kind(part) != "text"]
        for prompt in prompts
    ]


def make_text(processor: ProcessorMixin, prompt: Sequence[str | Pixels]) -> str:
    """Return what the processor's chat template says for one turn of the user."""
    content = [{"type": _kind(part)} | ({"text": part} if isinstance(part, str) else {}) for part in prompt]
    messages = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _of_kind(kind: str, prompts: Sequence[Sequence[str | Pixels]]) -> list[list[str | Pixels]]:
    return [[part for part in prompt if _kind(part) == kind] for prompt in prompts]


def _kind(part: str | Pixels) -> str:
    return "text" if isinstance(part, str) else {3: "image", 4: "video"}[part.ndim]


def _metadata(video: Pixels) -> VideoMetadata:
    num_frames, height, width, _ = video.shape
    return VideoMetadata(
        total_num_frames=num_frames * STRIDE,
        fps=FPS,
        duration=num_frames * STRIDE / FPS,
        frames_indices=list(range(0, num_frames * STRIDE, STRIDE)),
        height=height,
        width=width,
    )
