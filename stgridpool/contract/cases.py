"""Inputs of the contract tests: methods by name, and evidence and clips for them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from functools import cache

import torch
from torch import Tensor

from stgridpool.chain import Chain
from stgridpool.compressor import Compressed, Compressor
from stgridpool.compressors import COMPRESSORS, build_compressor
from stgridpool.evidence import (
    Evidence,
    FrameVectors,
    JointPatches,
    Need,
    QueryAttention,
    Question,
    RotaryBias,
    TowerKeys,
)
from stgridpool.listed_frames import ListedFrames
from stgridpool.plan import Shape

SHAPES: tuple[Shape, ...] = (
    (1, 1, 1),
    (1, 2, 2),
    (2, 4, 4),
    (3, 5, 4),
    (7, 1, 3),
    (8, 6, 1),
    (9, 7, 7),
    (16, 4, 6),
    (33, 3, 2),
    (64, 3, 3),
)
"""(T, H, W): one frame to 64; one token, one row or column, odd and even sides."""

SHARED: Shape = (9, 6, 6)
"""The lattice on which several tests look at one decision."""

NUM_COMPOSITIONS = 40


@cache
def methods_to_test(*names: str) -> dict[str, Compressor]:
    """Return the methods called `names`; without any, all of ours with their presets and 40 random compositions.

    Presets that differ from another in thresholds alone are left out: the contract holds for any.
    """
    chosen = names or list(COMPRESSORS)
    methods = {name: build_compressor(name) for name in chosen}
    for name, method in list(methods.items()):
        seen = [_settings(method)]
        for preset in getattr(method, "PRESETS", {}):
            made = build_compressor(name, preset=preset)
            if made != method and not any(_differ_in_thresholds(_settings(made), other) for other in seen):
                seen.append(_settings(made))
                methods[f"{name}[{preset}]"] = made
    return methods if names else methods | dict(_compositions())


def _settings(method: Compressor) -> dict[str, object]:
    return {field.name: getattr(method, field.name) for field in fields(method) if field.name != "preset"}


def _differ_in_thresholds(one: dict[str, object], other: dict[str, object]) -> bool:
    """Return whether thresholds differ, and nothing else; presets of equal settings are different rules."""
    differing = {name for name in one if one[name] != other[name]}
    return bool(differing) and all(name.endswith("_threshold") for name in differing)


def _compositions() -> Iterator[tuple[str, Compressor]]:
    """Draw compositions of two or three methods that can follow each other."""
    draw = random.Random(0)
    found: set[str] = set()
    while len(found) < NUM_COMPOSITIONS:
        names = draw.sample(list(COMPRESSORS), draw.choice((2, 3)))
        name = "+".join(names)
        if name in found or not _can_be_joined([build_compressor(one) for one in names]):
            continue
        found.add(name)
        yield name, build_compressor(name)


def _can_be_joined(methods: list[Compressor]) -> bool:
    try:
        steps = Chain(tuple(methods)).steps()
    except ValueError:  # not in the order of the model
        return False
    for source in SHAPES:
        shape: Shape | None = source
        for step in steps:
            if shape is None and step.compressor.needs_maps:
                return False
            shape = None if shape is None else step.compressor.planned_shape(shape)
    return True


def clip(shape: Shape, width: int = 8, seed: int = 0) -> Tensor:
    """Return random feature maps (T, H, W, D), the same ones in every call."""
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(seed))


def invented(
    compressor: Compressor, shape: Shape, num_tokens: int | None = None, width: int = 8, seed: int = 0
) -> Evidence:
    """Invent the evidence that a method needs, the same in every call with the same seed.

    Args:
        compressor: The method.
        shape: (T, H, W) of the lattice.
        num_tokens: Tokens on the lattice; None if they fill it.
        width: D.
        seed: Of the random numbers.
    """
    frames, height, row = shape
    count = frames * height * row if num_tokens is None else num_tokens
    generator = torch.Generator().manual_seed(seed)
    found: dict[Need, Tensor] = {}
    for need in sorted(compressor.needs, key=repr):
        if isinstance(need, TowerKeys):
            found[need] = torch.randn(count, 16, generator=generator)
        elif isinstance(need, JointPatches):
            found[need] = torch.randn(count, width, generator=generator)
        elif isinstance(need, RotaryBias):
            found[need] = torch.rand(count, 5, generator=generator)
        elif isinstance(need, QueryAttention) and need.reduce == "none":
            found[need] = torch.rand(count, 16, 5, generator=generator)
        elif need.per_token:
            found[need] = torch.rand(count, generator=generator)
        elif isinstance(need, ListedFrames):
            found[need] = torch.ones(frames)
        elif isinstance(need, FrameVectors):
            found[need] = torch.randn(frames, width, generator=generator)
        elif isinstance(need, Question):
            found[need] = torch.randn(1, width, generator=generator)
    return found


_DECIDED: dict[int, tuple[Compressor, Compressed]] = {}


def decided(compressor: Compressor) -> Compressed:
    """Return what a method decides for `SHARED`; it is asked once."""
    if id(compressor) not in _DECIDED:  # methods of others need not be hashable
        _DECIDED[id(compressor)] = compressor, compressor(clip(SHARED), invented(compressor, SHARED))
    return _DECIDED[id(compressor)][1]
