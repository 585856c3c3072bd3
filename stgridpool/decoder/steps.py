"""DecoderSteps: compressors at work inside a language model, each on the hidden states that enter its layer.

Layers below the first step see the whole prompt. What enters the layer of a step is shortened: the visual tokens of
each video go through the compressor; text passes untouched. From there on every layer has a shorter sequence and a
shorter cache, up to the next step, so each segment of layers gets masks and positions of its own, for the prompt and
for everything that follows it.

A step may ask for attention from the text to the visual tokens (`QueryRows`). It is computed from the queries of
the rows asked for and the keys of the layer named, on what enters that layer. Of its own layer a step sees what enters
its compressor; of an earlier one what remains behind the steps there. The attention that the model runs with does not
matter and stays as it is.

Nothing is patched: hooks are put on the decoder's own layers while a `with` block runs, and taken off at its end.

Source: STTM (https://arxiv.org/abs/2507.07990), section 3, for where a step acts and for the ways to place what
remains; the rest is for any compressor.
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
    """What became of a batch of prompts; empty until they went through the model.

    Attributes:
        kept: Of each step (B, M) bool, true on the real tokens that each prompt has behind it; padding is on the left.
        plans: What was decided: ``plans[row][step][video]``.
        num_newlines: Newline tokens behind each step: ``num_newlines[row][step]``; one goes when nothing remains of its
            row or frame.
    """

    kept: list[Tensor] = field(default_factory=list)
    plans: list[list[list[Plan]]] = field(default_factory=list)
    num_newlines: list[list[int]] = field(default_factory=list)


class DecoderSteps:
    """Steps in front of layers of a language model, any number at any layers.

    Prompts may be a batch, padded on either side, with several videos each. A prompt's first forward must hold all of
    its videos: prefilling in chunks is not supported.

    Args:
        decoder: The layers of a language model that attend to every earlier position.
        steps: At least one, in the order of their layers; those at the same layer act one after the other.

    Attributes:
        decoder: See above.
        steps: See above.
        layers: The layer of each step.
        last: The prompts that were compressed last, or None.

    Raises:
        ValueError: If a step does not act inside the language model or asks for what the decoder does not have.
    """

    def __init__(self, decoder: Decoder, steps: Sequence[Step]) -> None:
        if not steps:
            raise ValueError("there must be at least one step inside the language model, got none")
        self.decoder, self.steps = decoder, tuple(steps)
        self.layers = tuple(_layer_of(step, decoder) for step in steps)
        self.last: CompressedPrompts | None = None
        if list(self.layers) != sorted(self.layers):
            raise ValueError(f"steps must be in the order of their layers, got layers {list(self.layers)}")
        if decoder.num_position_axes != 1:
            raise ValueError(f"steps place tokens on one axis of positions, the model has {decoder.num_position_axes}")
        decoder.check_attends_to_all()
        for step, layer in zip(self.steps, self.layers, strict=True):
            for need in attention_needs(step):
                if need.layer > layer:
                    raise ValueError(f"{step.compressor!r} acts at layer {layer}, where {need!r} is not known yet")
                decoder.check_attention(need.layer)

    @property
    def query_aware(self) -> bool:
        """Whether a step looks at the question; prompts then share nothing."""
        return any(step.compressor.query_aware for step in self.steps)

    @contextmanager
    def prompts(
        self, spans: Sequence[Sequence[VisualSpan]], num_answer: Sequence[int] | None = None
    ) -> Iterator[CompressedPrompts]:
        """Compress while the block runs: the first forward prefills prompts, later ones continue them.

        Args:
            spans: The videos of each prompt of the batch, in order; a batch of n times as many rows (beams) repeats
                each n times.
            num_answer: For each prompt its tokens at the end that are part of an answer, at which no step looks; None
                for prompts that end with the question.

        Raises:
            ValueError: If the first forward does not hold all videos.
        """
        compressed = self.last = CompressedPrompts()
        with self._attached(_Run(self, spans, num_answer or [0] * len(spans), compressed)):
            yield compressed

    @contextmanager
    def continuing(self, prompts: CompressedPrompts) -> Iterator[None]:
        """Go on with prompts that were prefilled in an earlier block, from their cache or forks of it.

        The first forward of the block still belongs to the prompts (it may be a question about their video); tokens
        after it count as generated.

        Raises:
            ValueError: If they have not been prefilled.
        """
        if not prompts.kept:
            raise ValueError("these prompts have not been prefilled; run them inside `prompts` first")
        with self._attached(_Run(self, (), (), prompts)):
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
    ) -> None:
        self._steps, self._spans, self._num_answer, self._prompts = steps, spans, num_answer, prompts
        self._is_prompt = True  # the next forward still belongs to the prompts
        self._pass: Prefill | Continuation | None = None

    def enter_body(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        """Begin a forward, and note which positions are real; the layers only get masks made from that."""
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
        """Hand a layer its shortened inputs."""
        if self._pass is None:
            raise ValueError("layers inside a block of steps must be called by the language model")
        hidden, inputs = self._pass.enter(index, args[0], find_cache(args, kwargs), kwargs)
        if isinstance(self._pass, Prefill) and index == self._steps.layers[-1]:
            self._prompts.kept = self._pass.kept
            self._prompts.plans, self._prompts.num_newlines = self._pass.plans, self._pass.num_newlines
        return (hidden, *args[1:]), kwargs | inputs


def attention_needs(step: Step) -> list[QueryRows]:
    """Return what a step asks the decoder for."""
    return [need for need in step.compressor.needs if isinstance(need, QueryRows)]


def _layer_of(step: Step, decoder: Decoder) -> int:
    """Return the layer of a step.

    Raises:
        ValueError: If it has none, or an option is out of its range.
    """
    if not isinstance(step.place, int):
        raise ValueError(f"{step.compressor!r} acts at place {step.place!r}, not inside the language model")
    first, count = decoder.first_layer, len(decoder.layers)
    if not first <= step.place < count:
        raise ValueError(
            f"layer must be at least {first} and below the model's {count} layers, got {step.place}; choose it in the "
            "compressor's options"
        )
    if step.positions not in POSITIONS:
        raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {step.positions!r}")
    return step.place
