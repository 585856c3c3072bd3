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
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

from stgridpool.compressor import Compressor
from stgridpool.plan import Grid, Plan

POSITIONS = ("reassign", "survive", "merge")


@dataclass(frozen=True, eq=False)
class VisualSpan:
    """Where a video stands in a prompt. Positions count the prompt's real tokens from 0, without padding.

    Attributes:
        tokens: (T*H*W,) int64, ascending: the position of each visual token, in (frame, row, column) order.
        grid: (T, H, W).
        newlines: (n,) int64, ascending: positions of the newline tokens that belong to the video.
    """

    tokens: Tensor
    grid: Grid
    newlines: Tensor


@dataclass(eq=False)
class CompressedPrompts:
    """What became of a batch of prompts; empty until they went through the model.

    Attributes:
        kept: (B, M) bool, true on the real tokens that layers k and up have of each prompt; padding is on the left.
        full_length: Positions of the prompts in the layers below k, padding included.
        plans: What the compressor decided about the videos of each prompt.
        num_newlines: Newline tokens left in each prompt; one goes when nothing is left of its row or frame.
    """

    kept: Tensor | None = None
    full_length: int = 0
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
            raise ValueError(f"layer must be at least 0 and below the model's {num_layers} layers, got {layer}")
        if positions not in POSITIONS:
            raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {positions!r}")
        kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise ValueError(f"a compressor inside the language model needs full attention, got layers of {kinds}")
        self.compressor, self.layer = compressor, layer
        self.positions, self.decode_gap, self.merges_evenly = positions, decode_gap, merges_evenly

    @contextmanager
    def prompts(self, spans: Sequence[Sequence[VisualSpan]]) -> Iterator[CompressedPrompts]:
        """Compress while the block runs: the first forward prefills prompts, later ones continue them.

        Args:
            spans: The videos of each prompt of the batch, in order; a batch of n times as many rows (beams) repeats
                each n times.

        Raises:
            ValueError: If the first forward does not hold all videos.
        """
        compressed = CompressedPrompts()
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

    @contextmanager
    def _attached(self, run: _Run) -> Iterator[None]:
        with ExitStack() as hooks:
            handle = self._decoder.register_forward_pre_hook(run.enter_decoder, with_kwargs=True)
            hooks.callback(handle.remove)
            for index, layer in enumerate(self._decoder.layers[self.layer :]):
                hook = run.later_layer if index else run.first_layer
                hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield

    def rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The model's rotary tables for positions (B, n): cosines and sines (B, n, d)."""
        return self._decoder.rotary_emb(hidden, positions)

    def causal_mask(self, hidden: Tensor, mask: Tensor, cache: Any, positions: Tensor) -> Any:
        """The attention mask of layers k and up for queries `hidden` (B, n, D); `mask` (B, cached + n) says what is real."""
        return create_causal_mask(
            config=self._decoder.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=cache,
            position_ids=positions,
            layer_idx=None if cache is None else self.layer,
        )


class StageCache(DynamicCache):
    """A cache that tells its length in positions of the whole prompt, also where layer 0 holds fewer.

    ``generate`` asks for that length to find the part of a prompt that is new.

    Attributes:
        num_removed: Positions that layer 0 lacks.
    """

    num_removed: int = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions seen so far."""
        return super().get_seq_length(layer_idx) + (self.num_removed if layer_idx == 0 else 0)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Positions that a layer holds."""
        return super().get_seq_length(layer_idx)


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
        hidden = args[0]
        if self._prompts.kept is None:
            hidden = self._compress(hidden, kwargs)
        else:
            self._continue(hidden, kwargs)
        self._is_prompt = False
        return (hidden, *args[1:]), kwargs | self._inputs

    def later_layer(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG002
        """The same masks and positions as in layer k."""
        return args, kwargs | self._inputs

    def _compress(self, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """The prompts (B, L, D) shortened to (B, M, D), shorter ones padded on the left."""
        stage = self._stage
        batch, length, _ = hidden.shape
        mask = hidden.new_ones(batch, length, dtype=torch.bool) if self._mask is None else self._mask.bool()
        if mask.shape[1] != length:
            raise ValueError("the first forward must hold the whole prompts, from an empty cache")
        rows = []
        for row, spans in enumerate(_repeated(self._spans, batch)):
            real = mask[row].nonzero().flatten()  # (n,) where the prompt's tokens stand in the padded row
            _check_spans(spans, len(real))
            rows.append(_compress_prompt(hidden[row][real], real, spans, stage.compressor))
        longest = max(len(row.tokens) for row in rows)
        shortened = torch.stack([_pad_left(row.tokens, longest) for row in rows])  # (B, M, D)
        kept = torch.stack([_pad_left(torch.ones_like(row.index, dtype=torch.bool), longest) for row in rows])
        self._prompts.kept, self._prompts.full_length = kept, length
        self._prompts.plans = [row.plans for row in rows]
        self._prompts.num_newlines = [row.num_newlines for row in rows]
        order = _count(kept)
        tables = stage.rotary(shortened, order)
        if stage.positions != "reassign":
            cosines, sines = (table.expand(batch, -1, -1) for table in kwargs["position_embeddings"])
            gather = self._merged if stage.positions == "merge" else _kept_rows
            tables = gather(cosines, rows, longest), gather(sines, rows, longest)
        self._set_inputs(shortened, kept, order, tables, kwargs.get("past_key_values"))
        return shortened

    def _continue(self, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Masks and positions of tokens that follow the shortened prompts."""
        stage, cache = self._stage, kwargs.get("past_key_values")
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
        self, hidden: Tensor, mask: Tensor, order: Tensor, tables: tuple[Tensor, Tensor], cache: Any
    ) -> None:
        self._inputs = {
            "attention_mask": self._stage.causal_mask(hidden, mask, cache, order),
            # Counted without gaps: flash attention takes a gap here for the seam of two packed prompts.
            "position_ids": order,
            "position_embeddings": tables,
        }

    def _merged(self, table: Tensor, rows: Sequence[_Prompt], longest: int) -> Tensor:
        """Rotary tables (B, L, d) averaged over what was merged, for (B, M, d)."""
        merged = []
        for full, row in zip(table, rows, strict=True):
            values = full.clone()
            for span, targets, plan in zip(row.spans, row.targets, row.plans, strict=True):
                weights = _even(plan) if self._stage.merges_evenly else plan
                values[row.real[targets]] = weights.apply(full[row.real[span.tokens]])
            merged.append(_pad_left(values[row.index], longest))
        return torch.stack(merged)


@dataclass(frozen=True, eq=False)
class _Prompt:
    """A shortened prompt: its tokens (M, D), and where in the padded row of L each of them stood, `index` (M,)."""

    tokens: Tensor
    index: Tensor
    real: Tensor
    spans: Sequence[VisualSpan]
    targets: list[Tensor]
    plans: list[Plan]
    num_newlines: int


def _compress_prompt(tokens: Tensor, real: Tensor, spans: Sequence[VisualSpan], compressor: Compressor) -> _Prompt:
    """Compress the videos of one prompt (n, D) whose tokens stand at `real` (n,)."""
    keep = torch.ones_like(real, dtype=torch.bool)
    plans, all_targets, num_newlines = [], [], 0
    for span in spans:
        compressed = compressor.compress(tokens[span.tokens].unflatten(0, span.grid))
        targets = span.tokens[_cells(compressed.plan).to(span.tokens.device)]  # (N,) positions of those that are left
        survives = torch.zeros_like(keep).index_fill(0, targets, True)
        kept_newlines = _newlines_left(survives, span.newlines)
        keep = keep.index_fill(0, torch.cat([span.tokens, span.newlines]), False)
        keep = keep.index_fill(0, torch.cat([targets, kept_newlines]), True)
        tokens = tokens.index_copy(0, targets, compressed.tokens)
        plans.append(compressed.plan)
        all_targets.append(targets)
        num_newlines += len(kept_newlines)
    index = keep.nonzero().flatten()
    return _Prompt(tokens[index], real[index], real, spans, all_targets, plans, num_newlines)


def _newlines_left(survives: Tensor, newlines: Tensor) -> Tensor:
    """Of newlines at positions (n,), those with a surviving token between the newline before and them."""
    counts = survives.cumsum(0)[newlines]
    return newlines[counts.diff(prepend=counts.new_zeros(1)) > 0]


def _cells(plan: Plan) -> Tensor:
    """The cell (N,) of the source grid that each output token stands on; of a pooled window, its first."""
    sizes = torch.tensor([plan.grid, plan.shape], device=plan.place.device)
    cells = plan.place * sizes[0] // sizes[1]  # (N, 3)
    _, height, width = plan.grid
    return (cells[:, 0] * height + cells[:, 1]) * width + cells[:, 2]


def _even(plan: Plan) -> Plan:
    """The same plan with equal weights in every row."""
    flat = plan.flatten()
    counts = flat.offsets.diff()
    return replace(flat, weights=torch.repeat_interleave(1 / counts.to(flat.weights), counts))


def _check_spans(spans: Sequence[VisualSpan], length: int) -> None:
    for span in spans:
        if len(span.tokens) and int(span.tokens[-1]) >= length:
            raise ValueError(
                f"a video ends at position {int(span.tokens[-1])} of a prompt of {length} tokens; the first forward "
                "must hold the whole prompt (no chunked prefill), and the prompt must not be cut"
            )


def _count(mask: Tensor) -> Tensor:
    """Positions (B, n) of real tokens, counted from 0; 0 on padding before them."""
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0)


def _pad_left(values: Tensor, length: int) -> Tensor:
    return F.pad(values, (0, 0) * (values.dim() - 1) + (length - len(values), 0))


def _kept_rows(table: Tensor, rows: Sequence[_Prompt], longest: int) -> Tensor:
    """The rows of a table (B, L, d) that are left: (B, M, d)."""
    return torch.stack([_pad_left(full[row.index], longest) for full, row in zip(table, rows, strict=True)])


def _repeated(spans: Sequence[Sequence[VisualSpan]], batch: int) -> list[Sequence[VisualSpan]]:
    """The spans of every row of a batch.

    Raises:
        ValueError: If the rows are no multiple of the prompts.
    """
    if not spans or batch % len(spans):
        raise ValueError(f"videos of {len(spans)} prompts were announced, and the batch has {batch} rows")
    return [row for row in spans for _ in range(batch // len(spans))]
