"""How many visual tokens are left: every definition in use, counted in the same way for every method.

"Retention" means different things in different papers: what enters the language model, the mean over its layers, what
its last layer has, or what a generated token reads from the cache; with or without the newline tokens that some models
put between rows and frames. The numbers differ by factors, so every one of them is given, and each by its name.

All are fractions of what the checkpoint's own pooling would hand to the language model for the same frames. The counts
are those of the running model: `LayerLengths` reads them where the decoder's layers are entered.

Source: the definitions are those of STTM (https://arxiv.org/abs/2507.07990), FastV, FlashVID, HoliTom and DyCoke.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

DEFINITIONS = ("entering_llm", "layer_average", "last_layer", "kv_read")


@dataclass(frozen=True)
class TokenCounts:
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
        return kept | {f"{name}_with_newlines": n for name, n in _by_definition(with_newlines, self.kv_read).items()}

    def retention(self) -> dict[str, float]:
        """`kept` as fractions of the full count; 0 where there is no video."""
        return {
            name: kept / (self.full + self.full_newlines * name.endswith("_with_newlines")) if self.full else 0.0
            for name, kept in self.kept().items()
        }


def _by_definition(layers: Sequence[int], read: Sequence[int]) -> dict[str, float]:
    values = (layers[0], sum(layers) / len(layers), layers[-1], sum(read) / len(read))
    return dict(zip(DEFINITIONS, values, strict=True))


def mean_retention(questions: Iterable[TokenCounts]) -> dict[str, float]:
    """The mean of the questions' retentions, as most papers publish it; every question counts the same."""
    each = [question.retention() for question in questions if question.full]
    return {name: sum(one[name] for one in each) / len(each) for name in (each[0] if each else ())}


def total_retention(questions: Iterable[TokenCounts]) -> dict[str, float]:
    """Tokens left over all questions as a fraction of all; long videos count more."""
    questions = [question for question in questions if question.full]
    total = {"": sum(one.full for one in questions)}
    total["_with_newlines"] = total[""] + sum(one.full_newlines for one in questions)
    kept = [question.kept() for question in questions]
    return {
        name: sum(one[name] for one in kept) / total["_with_newlines" if name.endswith("_with_newlines") else ""]
        for name in (kept[0] if kept else ())
    }


class LayerLengths:
    """Reads how many positions enter each decoder layer of a language model.

    Args:
        model: A causal language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._layers = model.base_model.layers

    @contextmanager
    def of_first_forward(self) -> Iterator[list[int]]:
        """A list that the first forward of the block fills: the positions that enter each layer, padding included.

        Hooks are put on the layers, behind those of an `LLMStage` that is at work already, and taken off at the end.
        """
        lengths: list[int] = []

        def note(module: Any, args: tuple[Any, ...]) -> None:  # noqa: ARG001
            if len(lengths) < len(self._layers):
                lengths.append(args[0].shape[1])

        with ExitStack() as hooks:
            for layer in self._layers:
                hooks.callback(layer.register_forward_pre_hook(note).remove)
            yield lengths
