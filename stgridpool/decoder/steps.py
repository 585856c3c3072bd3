"""DecoderSteps: compressors inside a language model, each acting on the hidden states at the input of its layer.

Layers below the first step see the whole prompt. At the layer of a step, the compressor reduces the visual tokens of
each video; text stays unchanged. From there to the next step every layer has a shorter sequence and a shorter cache, so
each segment of layers gets its own masks and positions, for the prompt and for all later tokens.

A step may need the attention from text to visual tokens (`QueryRows`). It is computed from the input of the named
layer, with the queries of the requested rows and the keys of that layer. For its own layer a step sees the input of its
compressor; for an earlier layer, the output of the steps there. The attention implementation of the model does not
matter and is not changed.

Nothing is patched: hooks are registered on the decoder's layers when a `with` block begins, and removed when it ends.

Source: STTM (https://arxiv.org/abs/2507.07990), section 3, for the place of a step and for the policies of positions;
the rest works for any compressor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from stgridpool.compressor import POSITIONS, Step
from stgridpool.decoder.continuation import Continuation
from stgridpool.decoder.decoder import Decoder
from stgridpool.decoder.kv_cache import find_cache
from stgridpool.decoder.prefill import Prefill
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.evidence import QueryRows
from stgridpool.plan import Plan


@dataclass(eq=False)
class CompressedPrompts:
    """The result of the steps for a batch of prompts; empty until the prompts have gone through the model.

    Attributes:
        kept: For each step (B, M) bool, the real tokens of each prompt after it; padding is on the left.
        plans: The plans, ``plans[row][step][video]``.
        num_newlines: Number of newline tokens after each step, ``num_newlines[row][step]``; a newline token is removed
            when no token of its row or frame remains.
    """

    kept: list[Tensor] = field(default_factory=list)
    plans: list[list[list[Plan]]] = field(default_factory=list)
    num_newlines: list[list[int]] = field(default_factory=list)


class DecoderSteps:
    """Steps inside a language model, any number of them at any layers.

    Prompts may be a batch, padded on either side, with several videos each. The first forward must contain all videos
    of a prompt: prefilling in chunks is not supported.

    Args:
        decoder: The layers of a language model, each of which attends to all earlier positions.
        steps: At least one step, in the order of their layers; steps at the same layer act one after the other.

    Attributes:
        decoder: See above.
        steps: See above.
        layers: The layer of each step.
        last: The result for the prompts of the latest block of `prompts`, or None.

    Raises:
        ValueError: If there is no step, steps are out of order, one does not act inside the language model, or the
            decoder does not support one.
    """

    def __init__(self, decoder: Decoder, steps: Sequence[Step]) -> None:
        if not steps:
            raise ValueError("there must be at least one step inside the language model, got none")
        self.decoder, self.steps = decoder, tuple(steps)
        self.layers = tuple(_layer_of(step, decoder) for step in steps)
        self.last: CompressedPrompts | None = None
        if list(self.layers) != sorted(self.layers):
            raise ValueError(f"steps must be in the order of their layers, got layers {list(self.layers)}")
        decoder.check_attends_to_all()
        for step, layer in zip(self.steps, self.layers, strict=True):
            for need in attention_needs(step):
                if need.layer > layer:
                    raise ValueError(f"{step.compressor!r} acts at layer {layer}, before {need!r} can be computed")
                decoder.check_attention(need.layer)

    @property
    def query_aware(self) -> bool:
        """Whether a step looks at the question; prompts then share no prefix."""
        return any(step.compressor.query_aware for step in self.steps)

    @contextmanager
    def prompts(
        self, spans: Sequence[Sequence[VisualSpan]], num_answer: Sequence[int] | None = None
    ) -> Iterator[CompressedPrompts]:
        """Compress while the block runs: the first forward prefills prompts, later ones continue them.

        Args:
            spans: The videos of each prompt in the batch, in order; if the batch has n times as many rows (beams), each
                prompt has n consecutive rows.
            num_answer: For each prompt the number of tokens at its end that belong to an answer, which no step may look
                at; None for prompts that end with the question.

        Raises:
            ValueError: If the first forward does not contain all videos.
        """
        compressed = self.last = CompressedPrompts()
        with self._attached(_Run(self, spans, num_answer or [0] * len(spans), compressed)):
            yield compressed

    @contextmanager
    def continuing(self, prompts: CompressedPrompts, is_prompt: bool = True) -> Iterator[None]:
        """Continue prompts that were prefilled in an earlier block, from their cache or forks of it.

        Args:
            prompts: The result of the earlier block.
            is_prompt: Whether the first forward of the block still belongs to the prompts, such as a question about
                their video; all later tokens count as generated.

        Raises:
            ValueError: If the prompts have not been prefilled.
        """
        if not prompts.kept:
            raise ValueError("these prompts have not been prefilled; run them inside `prompts` first")
        with self._attached(_Run(self, (), (), prompts, is_prompt)):
            yield

    @contextmanager
    def _attached(self, run: _Run) -> Iterator[None]:
        needs = [need for step in self.steps for need in attention_needs(step)]
        first = min((*self.layers, *(0 if need.rows == "relevant" else need.layer for need in needs)))
        with ExitStack() as hooks:
            handle = self.decoder.body.register_forward_pre_hook(run.enter_body, prepend=True, with_kwargs=True)
            hooks.callback(handle.remove)
            for index, layer in enumerate(self.decoder.layers):
                if index >= first:
                    hook = partial(run.enter_layer, index)
                    hooks.callback(layer.register_forward_pre_hook(hook, prepend=True, with_kwargs=True).remove)
            yield


class _Run:
    """The hooks of one `with` block."""

    def __init__(
        self,
        steps: DecoderSteps,
        spans: Sequence[Sequence[VisualSpan]],
        num_answer: Sequence[int],
        prompts: CompressedPrompts,
        is_prompt: bool = True,
    ) -> None:
        self._steps, self._spans, self._num_answer, self._prompts = steps, spans, num_answer, prompts
        self._is_prompt = is_prompt  # the next forward still belongs to the prompts
        self._pass: Prefill | Continuation | None = None

    def enter_body(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        """Begin a forward and keep its padding mask, since layers only get masks that were made from it."""
        decoder, steps = self._steps.decoder, self._steps.steps
        mask = decoder.padding_mask(args, kwargs)
        if self._prompts.kept:
            self._pass = Continuation(decoder, steps, mask, self._prompts.kept, self._is_prompt)
        else:
            self._pass = Prefill(decoder, steps, mask, self._spans, self._num_answer)
        self._is_prompt = False

    def enter_layer(
        self,
        index: int,
        module: Any,  # noqa: ARG002
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, dict[str, Any]]:
        """Replace the inputs of a layer by shortened ones.

        Raises:
            ValueError: If something else than the language model calls the layer.
        """
        if self._pass is None:
            raise ValueError("inside a block of steps, only the language model may call its layers")
        hidden, inputs = self._pass.enter(index, args[0], find_cache(args, kwargs), kwargs)
        if isinstance(self._pass, Prefill) and index == self._steps.layers[-1]:
            self._prompts.kept = self._pass.kept
            self._prompts.plans, self._prompts.num_newlines = self._pass.plans, self._pass.num_newlines
        return (hidden, *args[1:]), kwargs | inputs


def attention_needs(step: Step) -> list[QueryRows]:
    """Return the needs of a step that the decoder provides."""
    return [need for need in step.compressor.needs if isinstance(need, QueryRows)]


def _layer_of(step: Step, decoder: Decoder) -> int:
    """Return the layer of a step.

    Raises:
        ValueError: If it does not act at a layer of the decoder, or its `positions` are unknown.
    """
    if not isinstance(step.place, int):
        raise ValueError(f"{step.compressor!r} acts at place {step.place!r}, not inside the language model")
    first, count = decoder.first_layer, len(decoder.layers)
    if not first <= step.place < count:
        entering = f": visual features enter this model's first {first}" if first else ""
        raise ValueError(
            f"layer must be at least {first} and below the model's {count} layers, got {step.place} of "
            f"{step.compressor!r}{entering}; choose another layer in its options, or a method that acts before the "
            "language model"
        )
    if step.positions not in POSITIONS:
        raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {step.positions!r}")
    return step.place
