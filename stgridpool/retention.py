"""How many visual tokens are left: every definition in use, counted in the same way for every method.

"Retention" means different things in different papers: what enters the language model, the mean over its layers, what
its last layer has, or what a generated token reads from the cache; with or without the newline tokens that some models
put between rows and frames. The numbers differ by factors, so every one of them is given, and each by its name.

All are fractions of what the checkpoint's own pooling would hand to the language model for the same frames. The counts
are those of the running model: `LayerLengths` reads them where the decoder's layers are entered.

Source: the definitions are those of STTM (https://arxiv.org/abs/2507.07990), FastV, FlashVID, HoliTom and DyCoke.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

DEFINITIONS = ("entering_llm", "layer_average", "last_layer", "kv_read")
WITH_NEWLINES = "_with_newlines"


@dataclass(frozen=True)
class VisualCounts:
    """Visual tokens of one question, all its videos together.

    Attributes:
        full: What the checkpoint's own pooling gives, newlines apart.
        full_newlines: Newline tokens beside them.
        layers: What enters each decoder layer while the prompt is read, newlines apart.
        layer_newlines: Newline tokens that enter each.
        kv_read: Cache entries of visual tokens and newlines that each layer reads for a generated token.
    """

    full: int
    full_newlines: int
    layers: tuple[int, ...]
    layer_newlines: tuple[int, ...]
    kv_read: tuple[int, ...]

    def kept(self) -> dict[str, float]:
        """Tokens left by each of `DEFINITIONS`, newlines apart and, under names that end so, included."""
        with_newlines = [sum(pair) for pair in zip(self.layers, self.layer_newlines, strict=True)]
        read = [entries - newlines for entries, newlines in zip(self.kv_read, self.layer_newlines, strict=True)]
        kept = _by_definition(self.layers, read)
        return kept | {name + WITH_NEWLINES: n for name, n in _by_definition(with_newlines, self.kv_read).items()}


def fractions(kept: Mapping[str, float], full: int, full_newlines: int) -> dict[str, float]:
    """Counts of `VisualCounts.kept` as fractions of the full counts; empty where there is no video."""
    if not full:
        return {}
    return {name: n / (full + full_newlines * name.endswith(WITH_NEWLINES)) for name, n in kept.items()}


@dataclass
class RetentionSums:
    """Sums over questions; those without a video are left out.

    Attributes:
        questions: How many.
        full: Sum of their full counts, newlines apart.
        full_newlines: Sum of their newlines.
        kept: Sums of their counts by definition.
        retention: Sums of their retentions by definition.
    """

    questions: int = 0
    full: int = 0
    full_newlines: int = 0
    kept: dict[str, float] = field(default_factory=dict)
    retention: dict[str, float] = field(default_factory=dict)

    def add(self, kept: Mapping[str, float], full: int, full_newlines: int) -> None:
        """Count one question."""
        if full:
            self.merge(RetentionSums(1, full, full_newlines, dict(kept), fractions(kept, full, full_newlines)))

    def merge(self, other: RetentionSums) -> None:
        """Count what `other` counted."""
        self.questions += other.questions
        self.full += other.full
        self.full_newlines += other.full_newlines
        for name, value in other.kept.items():
            self.kept[name] = self.kept.get(name, 0) + value
            self.retention[name] = self.retention.get(name, 0) + other.retention[name]

    def mean(self) -> dict[str, float]:
        """The mean of the questions' retentions, as most papers publish it; every question counts the same."""
        return {name: value / self.questions for name, value in self.retention.items()}

    def total(self) -> dict[str, float]:
        """Tokens left over all questions as a fraction of all; long videos count more."""
        return fractions(self.kept, self.full, self.full_newlines)


def _by_definition(layers: Sequence[int], read: Sequence[int]) -> dict[str, float]:
    values = (layers[0], sum(layers) / len(layers), layers[-1], sum(read) / len(read))
    return dict(zip(DEFINITIONS, values, strict=True))


class LayerLengths:
    """Reads how many positions enter each decoder layer of a language model.

    Args:
        layers: The layers, in order, such as `stgridpool.decoder.decoder.Decoder.layers`.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = layers

    @contextmanager
    def of_first_forward(self) -> Iterator[list[int]]:
        """A list that the first forward of the block fills: the positions that enter each layer, padding included.

        Hooks are put on the layers, behind those of `DecoderSteps`, and taken off at the end.
        """
        lengths: list[int] = []

        def note(module: Any, args: tuple[Any, ...]) -> None:  # noqa: ARG001
            if len(lengths) < len(self._layers):
                lengths.append(args[0].shape[1])

        with ExitStack() as hooks:
            for layer in self._layers:
                hooks.callback(layer.register_forward_pre_hook(note).remove)
            yield lengths
