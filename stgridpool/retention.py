"""Retention: the fraction of visual tokens kept, by every definition in use, counted in the same way for every method.

"Retention" means different things in different papers: tokens that enter the language model, the mean over its layers,
tokens in its last layer, or cache entries that a generated token reads; with or without the newline tokens that some
models put between rows and frames. The numbers differ by factors, so we report all of them, each under its own name.

All are fractions of the tokens that the checkpoint's own pooling would hand to the language model for the same frames.
The counts come from the running model: `LayerLengths` reads them at the input of each decoder layer.

Source: the definitions are those of STTM (https://arxiv.org/abs/2507.07990), FastV, FlashVID, HoliTom and DyCoke.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

DEFINITIONS = ("entering_llm", "layer_average", "last_layer", "kv_read")
WITH_NEWLINES = "_with_newlines"


@dataclass(frozen=True)
class VisualCounts:
    """Counts of visual tokens for one question, over all its videos.

    Attributes:
        full: Visual tokens that the checkpoint's own pooling outputs, without newline tokens.
        full_newlines: Newline tokens beside them.
        layers: Visual tokens that enter each decoder layer during prefill, without newline tokens.
        layer_newlines: Newline tokens that enter each layer.
        kv_read: Cache entries, for visual and newline tokens, that each layer reads for a generated token.
    """

    full: int
    full_newlines: int
    layers: tuple[int, ...]
    layer_newlines: tuple[int, ...]
    kv_read: tuple[int, ...]

    def kept(self) -> dict[str, float]:
        """Count kept tokens by each of `DEFINITIONS`, without newlines and, under ``*_with_newlines``, with them."""
        with_newlines = [sum(pair) for pair in zip(self.layers, self.layer_newlines, strict=True)]
        read = [entries - newlines for entries, newlines in zip(self.kv_read, self.layer_newlines, strict=True)]
        kept = _by_definition(self.layers, read)
        return kept | {name + WITH_NEWLINES: n for name, n in _by_definition(with_newlines, self.kv_read).items()}


def fractions(kept: Mapping[str, float], full: int, full_newlines: int) -> dict[str, float]:
    """Divide counts from `VisualCounts.kept` by the full counts; empty if there is no video."""
    if not full:
        return {}
    return {name: n / (full + full_newlines * name.endswith(WITH_NEWLINES)) for name, n in kept.items()}


@dataclass
class RetentionSums:
    """Sums over questions; questions without a video are skipped.

    Attributes:
        questions: Number of questions.
        full: Sum of their full counts, without newline tokens.
        full_newlines: Sum of their full counts of newline tokens.
        kept: Sums of their kept tokens, by definition.
        retention: Sums of their retentions, by definition.
    """

    questions: int = 0
    full: int = 0
    full_newlines: int = 0
    kept: dict[str, float] = field(default_factory=dict)
    retention: dict[str, float] = field(default_factory=dict)

    def add(self, kept: Mapping[str, float], full: int, full_newlines: int) -> None:
        """Add one question."""
        if full:
            self.merge(RetentionSums(1, full, full_newlines, dict(kept), fractions(kept, full, full_newlines)))

    def merge(self, other: RetentionSums) -> None:
        """Add the sums of `other`."""
        self.questions += other.questions
        self.full += other.full
        self.full_newlines += other.full_newlines
        for name, value in other.kept.items():
            self.kept[name] = self.kept.get(name, 0) + value
            self.retention[name] = self.retention.get(name, 0) + other.retention[name]

    def mean(self) -> dict[str, float]:
        """Return the mean retention over questions, as most papers publish it; every question counts the same."""
        return {name: value / self.questions for name, value in self.retention.items()}

    def total(self) -> dict[str, float]:
        """Return the retention of all questions' tokens together; long videos count more."""
        return fractions(self.kept, self.full, self.full_newlines)


def _by_definition(layers: Sequence[int], read: Sequence[int]) -> dict[str, float]:
    values = (layers[0], sum(layers) / len(layers), layers[-1], sum(read) / len(read))
    return dict(zip(DEFINITIONS, values, strict=True))


class LayerLengths:
    """Reader of the number of positions that enter each decoder layer of a language model.

    Args:
        layers: The layers, in order, such as `stgridpool.decoder.decoder.Decoder.layers`.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = layers

    @contextmanager
    def of_first_forward(self) -> Iterator[list[int]]:
        """Yield a list that the first forward in the block fills: positions that enter each layer, padding included.

        Hooks are registered on the layers, after those of `DecoderSteps`, and removed when the block ends.
        """
        lengths: list[int] = []

        def note(module: Any, args: tuple[Any, ...]) -> None:  # noqa: ARG001
            if len(lengths) < len(self._layers):
                lengths.append(args[0].shape[1])

        with ExitStack() as hooks:
            for layer in self._layers:
                hooks.callback(layer.register_forward_pre_hook(note).remove)
            yield lengths
