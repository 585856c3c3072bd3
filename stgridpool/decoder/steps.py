"""LLMStage: a compressor at work inside a language model, on the hidden states that enter decoder layer k.

Layers below k see the whole prompt. What enters layer k is shortened: the visual tokens of each video, a grid, go
through the compressor; text passes untouched. From there on every layer has a shorter sequence and a shorter cache, so
masks and positions are made anew for layers k and up, for the prompt and for everything that follows it.

Nothing is patched: hooks are put on the decoder's own layers while a `with` block runs, and taken off at its end.

Source: STTM (https://arxiv.org/abs/2507.07990), section 3, for where it acts and for the ways to place what is left;
the rest is for any compressor.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from stgridpool.compressor import POSITIONS, Compressor, Step
from stgridpool.decoder.kv_cache import CACHE_ARGUMENT, find_cache
from stgridpool.decoder.shortened_prompt import ShortenedPrompt, VisualSpan, shorten
from stgridpool.plan import Plan


@dataclass(eq=False)
class CompressedPrompts:
    """What became of a batch of prompts; empty until they went through the model.

    Attributes:
        kept: (B, M) bool, true on the real tokens that layers k and up have of each prompt; padding is on the left.
        plans: What the compressor decided about the videos of each prompt.
        num_newlines: Newline tokens left in each prompt; one goes when nothing is left of its row or frame.
    """

    kept: Tensor | None = None
    plans: list[list[Plan]] = field(default_factory=list)
    num_newlines: list[int] = field(default_factory=list)


class LLMStage:
    """A compressor in front of decoder layer `layer` of a language model.

    Prompts may be a batch, padded on either side, with several videos each. A prompt's first forward must hold all of
    its videos: prefilling in chunks is not supported.

    Args:
        model: A causal language model of transformers whose layers all attend to every earlier position (Qwen2, Llama).
        compressor: Works on token grids.
        layer: k; 0 compresses the embeddings.
        positions: Where the tokens that are left stand from layer k on. "reassign": all tokens are counted anew, so
            that no gap remains. "survive": every token keeps its position. "merge": the rotary tables of merged
            tokens are averaged like the tokens, text keeps its own.
        decode_gap: With "reassign", give generated tokens the positions that they have without a compressor, as STTM's
            released code does. In layers k and up that leaves a gap behind the prompt, as long as what was removed.
        merges_evenly: With "merge", average rotary tables with the same weight for every source token instead of the
            compressor's weights.

    Attributes:
        last: The prompts that were compressed last, or None.

    Raises:
        ValueError: If an option is out of range, or a layer of the model attends to a window only.
    """

    def __init__(
        self,
        model: Any,
        compressor: Compressor,
        layer: int,
        positions: str = "reassign",
        decode_gap: bool = False,
        merges_evenly: bool = False,
    ) -> None:
        self._decoder = model.base_model
        num_layers = len(self._decoder.layers)
        if not 0 <= layer < num_layers:
            raise ValueError(
                f"layer must be at least 0 and below the model's {num_layers} layers, got {layer}; choose it in the "
                "compressor's options"
            )
        if positions not in POSITIONS:
            raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {positions!r}")
        kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise ValueError(f"a compressor inside the language model needs full attention, got layers of {kinds}")
        self.last: CompressedPrompts | None = None
        self.compressor, self.layer = compressor, layer
        self.positions, self.decode_gap, self.merges_evenly = positions, decode_gap, merges_evenly

    @classmethod
    def of(cls, model: Any, step: Step) -> LLMStage:
        """The stage for a step inside the language model.

        Raises:
            ValueError: If it does not act inside the language model, or asks for a layer that the model does not have.
        """
        if not isinstance(step.place, int):
            raise ValueError(f"{step.compressor!r} acts at place {step.place!r}, not inside the language model")
        return cls(model, step.compressor, step.place, step.positions, step.decode_gap, step.merges_evenly)

    @contextmanager
    def prompts(self, spans: Sequence[Sequence[VisualSpan]]) -> Iterator[CompressedPrompts]:
        """Compress while the block runs: the first forward prefills prompts, later ones continue them.

        Args:
            spans: The videos of each prompt of the batch, in order; a batch of n times as many rows (beams) repeats
                each n times.

        Raises:
            ValueError: If the first forward does not hold all videos.
        """
        compressed = self.last = CompressedPrompts()
        with self._attached(_Run(self, spans, compressed)):
            yield compressed

    @contextmanager
    def continuing(self, prompts: CompressedPrompts) -> Iterator[None]:
        """Go on with prompts that were prefilled in an earlier block, from their cache or forks of it.

        The first forward of the block still belongs to the prompts (it may be a question about their video); tokens
        after it count as generated.
        """
        if prompts.kept is None:
            raise ValueError("these prompts have not been prefilled; run them inside `prompts` first")
        with self._attached(_Run(self, (), prompts)):
            yield

    def placed(self, prompts: Sequence[ShortenedPrompt], table: Tensor, real: Sequence[Tensor]) -> Tensor:
        """What is left of the prompts' rotary table where positions are not counted anew.

        Args:
            prompts: The prompts, shortened.
            table: (B, L, d), of whole padded prompts.
            real: Where the tokens of each prompt stand among the L.

        Returns:
            (B, M, d), padded on the left.
        """
        rows = [row[places] for row, places in zip(table, real, strict=True)]
        if self.positions == "merge":
            return _pad_left([p.merge(row, self.merges_evenly) for p, row in zip(prompts, rows, strict=True)])
        return _pad_left([prompt.select(row) for prompt, row in zip(prompts, rows, strict=True)])

    @contextmanager
    def _attached(self, run: _Run) -> Iterator[None]:
        with ExitStack() as hooks:
            handle = self._decoder.register_forward_pre_hook(run.enter_decoder, prepend=True, with_kwargs=True)
            hooks.callback(handle.remove)
            for index, layer in enumerate(self._decoder.layers[self.layer :]):
                hook = run.later_layer if index else run.first_layer
                hooks.callback(layer.register_forward_pre_hook(hook, prepend=True, with_kwargs=True).remove)
            yield

    def rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The model's rotary tables for positions (B, n): cosines and sines (B, n, d)."""
        return self._decoder.rotary_emb(hidden, positions)

    def causal_mask(self, hidden: Tensor, mask: Tensor, cache: Cache | None, positions: Tensor) -> Any:
        """The attention mask of queries `hidden` (B, n, D) in layers k and up; `mask` (B, cached + n): what is real."""
        return create_causal_mask(
            config=self._decoder.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            position_ids=positions,
            layer_idx=None if cache is None else self.layer,
            **{CACHE_ARGUMENT: cache},
        )


class _Run:
    """The hooks of one `with` block, and what they tell each other during a forward."""

    def __init__(self, stage: LLMStage, spans: Sequence[Sequence[VisualSpan]], prompts: CompressedPrompts) -> None:
        self._stage, self._spans, self._prompts = stage, spans, prompts
        self._is_prompt = True  # the next forward still belongs to the prompts
        self._mask: Tensor | None = None  # (B, all positions so far), as the decoder got it
        self._inputs: dict[str, Any] = {}  # what layers k and up get

    def enter_decoder(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note which positions are real; the layers only get masks made from it."""
        mask = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments.get("attention_mask")
        if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
            raise ValueError("a compressor inside the language model needs a mask of (batch, positions), or none")
        self._mask = mask

    def first_layer(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG002
        """Shorten what enters layer k, or continue what was shortened."""
        hidden, cache = args[0], find_cache(args, kwargs)
        if self._prompts.kept is None:
            hidden = self._compress(hidden, cache, kwargs)
        else:
            self._continue(hidden, cache, kwargs)
        self._is_prompt = False
        return (hidden, *args[1:]), kwargs | self._inputs

    def later_layer(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG002
        """The same masks and positions as in layer k."""
        return args, kwargs | self._inputs

    def _compress(self, hidden: Tensor, cache: Cache | None, kwargs: dict[str, Any]) -> Tensor:
        """The prompts (B, L, D) shortened to (B, M, D), shorter ones padded on the left."""
        stage = self._stage
        batch, length, _ = hidden.shape
        mask = hidden.new_ones(batch, length) if self._mask is None else self._mask.to(hidden.device)
        if mask.shape[1] != length:
            raise ValueError("the first forward must hold the whole prompts, from an empty cache")
        real = [row.nonzero().flatten() for row in mask]  # where the tokens of each prompt stand in the padded row
        rows = [
            shorten(hidden[row][places], spans, stage.compressor)
            for row, (places, spans) in enumerate(zip(real, _repeated(self._spans, batch), strict=True))
        ]
        shortened = _pad_left([row.tokens for row in rows])  # (B, M, D)
        kept = _pad_left([torch.ones_like(row.index, dtype=torch.bool) for row in rows])  # (B, M)
        self._prompts.kept = kept
        self._prompts.plans = [row.plans for row in rows]
        self._prompts.num_newlines = [row.num_newlines for row in rows]
        order = _count(kept)
        tables = stage.rotary(shortened, order)
        if stage.positions != "reassign":
            cosines, sines = (table.expand(batch, -1, -1).to(hidden.device) for table in kwargs["position_embeddings"])
            tables = stage.placed(rows, cosines, real), stage.placed(rows, sines, real)
        self._set_inputs(shortened, kept, order, tables, cache)
        return shortened

    def _continue(self, hidden: Tensor, cache: Cache | None, kwargs: dict[str, Any]) -> None:
        """Masks and positions of tokens that follow the shortened prompts."""
        stage = self._stage
        batch, new, _ = hidden.shape
        kept = self._prompts.kept
        if kept is None or cache is None:
            raise ValueError("tokens after a shortened prompt need its cache")
        kept = kept.repeat_interleave(batch // len(kept), dim=0).to(hidden.device)  # (B, M)
        count = cache.get_query_offset(stage.layer) + new - kept.shape[1]  # positions behind the prompts' own
        added = kept.new_ones(batch, count) if self._mask is None else self._mask[:, -count:].bool()
        mask = torch.cat([kept, added.to(kept.device)], dim=1)
        order = _count(mask)[:, -new:]
        is_plain = stage.positions == "reassign" and (self._is_prompt or not stage.decode_gap)
        tables = stage.rotary(hidden, order) if is_plain else kwargs["position_embeddings"]
        self._set_inputs(hidden, mask, order, tables, cache)

    def _set_inputs(
        self, hidden: Tensor, mask: Tensor, order: Tensor, tables: tuple[Tensor, Tensor], cache: Cache | None
    ) -> None:
        self._inputs = {
            "attention_mask": self._stage.causal_mask(hidden, mask, cache, order),
            # Counted without gaps: flash attention takes a gap here for the seam of two packed prompts.
            "position_ids": order,
            "position_embeddings": tables,
        }


def _count(mask: Tensor) -> Tensor:
    """Positions (B, n) of real tokens, counted from 0; 0 on padding before them."""
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0)


def _pad_left(rows: Sequence[Tensor]) -> Tensor:
    """Rows (n_i, ...) as one tensor, shorter ones with zeros before them."""
    longest = max(map(len, rows))
    return torch.stack([F.pad(row, (0, 0) * (row.dim() - 1) + (longest - len(row), 0)) for row in rows])


def _repeated(spans: Sequence[Sequence[VisualSpan]], batch: int) -> list[Sequence[VisualSpan]]:
    """The spans of every row of a batch.

    Raises:
        ValueError: If the rows are no multiple of the prompts.
    """
    if not spans or batch % len(spans):
        raise ValueError(f"videos of {len(spans)} prompts were announced, and the batch has {batch} rows")
    return [row for row in spans for _ in range(batch // len(spans))]
