"""VideoSession: one video, many questions, and the shared part of their prompts prefilled once.

The video precedes the question in every prompt, so ``[system + video]`` is a prefix of all prompts about it. Its keys
and values are computed once; every question, or a batch of questions, continues from a fork of that cache. The
positions and the arithmetic are those of whole prompts, so the answers are the same up to rounding.

A session is only for compressors that do not look at the question, and for models whose cache grows by appending (any
decoder of transformers that attends to all earlier positions). Steps inside the language model shorten the prefix once;
every question continues from layers of unequal length.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

from stgridpool.decoder.decoder import Decoder, TransformersDecoder
from stgridpool.decoder.kv_cache import CACHE_ARGUMENT
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import CompressedPrompts, DecoderSteps
from stgridpool.finite import LogitsWatch, StageCheck

POSITIONS = "position_ids"
"""Name under which models take the positions of tokens."""


class PrefixCache(DynamicCache):
    """A cache that reports its length in positions of the whole prompt, even if a step at layer 0 removed some.

    ``generate`` uses that length to find the new part of a prompt.

    Attributes:
        num_removed: Number of positions of the prompt that layer 0 does not hold.
    """

    num_removed: int = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of positions seen so far."""
        return super().get_seq_length(layer_idx) + (self.num_removed if layer_idx == 0 else 0)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return the number of positions that a layer holds."""
        return super().get_seq_length(layer_idx)


class VideoSession:
    """The prefix of all prompts about a video, prefilled.

    Args:
        model: A causal language model of transformers.
        prefix: (P, D), embeddings of the shared beginning of all prompts, video included; P is at least 1.
        steps: Steps inside the language model, or None.
        spans: The videos in the prefix, for `steps`.
        decoder: The layers of `model`; None for those of `steps`, or of a model built as Qwen2 and Llama are.
        inputs: Further inputs of `model` for the prefix, (..., P) each, such as positions; prompts that continue it
            must then come with their positions.

    Attributes:
        model: See above.
        prefix: See above.
        compressed: The result of `steps` for the prefix; None without `steps`.

    Raises:
        ValueError: If `prefix` is empty or has another shape, the model's cache does not grow by appending, or a step
            looks at the question, or there is no `decoder` for the model.
    """

    def __init__(
        self,
        model: Any,
        prefix: Tensor,
        steps: DecoderSteps | None = None,
        spans: Sequence[VisualSpan] = (),
        decoder: Decoder | None = None,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        if prefix.dim() != 2 or prefix.shape[0] < 1:
            raise ValueError(f"prefix must be (positions, width) with at least one position, got {tuple(prefix.shape)}")
        if steps is not None and steps.query_aware:
            aware = [repr(step.compressor) for step in steps.steps if step.compressor.query_aware]
            raise ValueError(
                f"{', '.join(aware)} looks at the question, so questions cannot share a prefix: run every whole prompt "
                "inside DecoderSteps.prompts"
            )
        self.model = model
        self.prefix = prefix
        self._steps = steps
        self._cache = PrefixCache(config=model.config)
        if not all(type(layer) is DynamicLayer for layer in self._cache.layers):
            kinds = sorted({type(layer).__name__ for layer in self._cache.layers})
            raise ValueError(f"to share a prefix, every layer must keep all positions, got layers of {kinds}")
        if decoder is None:
            decoder = TransformersDecoder(model) if steps is None else steps.decoder
        self.compressed: CompressedPrompts | None = None
        with torch.inference_mode(), nullcontext() if steps is None else steps.prompts([spans]) as self.compressed:
            if inputs:
                self._prefill_with(inputs)
            else:
                decoder.prefill(prefix[None], self._cache)
        self._cache.num_removed = len(self) - self._cache.get_query_offset(0)

    def __len__(self) -> int:
        return self.prefix.shape[0]

    def layer_lengths(self) -> list[int]:
        """Return the number of cache entries for the prefix in each layer."""
        return [self._cache.get_query_offset(index) for index in range(len(self._cache.layers))]

    def generate(
        self,
        suffixes: Sequence[Tensor],
        positions: Sequence[Tensor | None] | None = None,
        watch: LogitsWatch | None = None,
        **options: Any,
    ) -> Tensor:
        """Continue several prompts as one batch.

        Args:
            suffixes: (n_i, D) each, embeddings of the part of each prompt after the prefix, at least one position.
            positions: (..., 1, P + n_i) each, those of the whole prompts; None if the model counts them.
            watch: Watch that records which answers come from logits that are not finite, for callers that check it
                together with the answers; without it, this method raises the error.
            **options: Options of transformers' ``generate``. Stopping criteria and logits processors see new tokens
                only.

        Returns:
            The result of ``generate``: (B, m) ids of the new tokens; rows that end earlier are padded.

        Raises:
            ValueError: If a suffix is empty.
            NonFiniteError: If `watch` is None and an answer comes from logits that are not finite.
        """
        own_watch = watch or LogitsWatch(self.model)
        embeds, mask = self._prompts(suffixes)
        inputs = {"attention_mask": mask} | self._placed(positions, embeds.shape[1])
        # transformers gives every beam and every returned sequence of a prompt a row of its own.
        rows_per_prompt = max(options.get("num_beams") or 1, options.get("num_return_sequences") or 1)
        cache = self._fork(len(suffixes) * rows_per_prompt)
        with torch.inference_mode(), self._continuing(), own_watch.attached():
            # The method of the mixin, since a model's own `generate` may accept only ids. It takes whole prompts and
            # skips the positions that the cache holds.
            output: Any = GenerationMixin.generate(
                self.model, inputs_embeds=embeds, **inputs, **{CACHE_ARGUMENT: cache}, **options
            )
            if watch is None:
                own_watch.check([StageCheck.of("embeddings of the prefix", self.prefix)])
        ids: Tensor = output
        return ids

    def logits(self, suffix: Tensor, positions: Tensor | None = None, num_last: int = 0) -> Tensor:
        """Compute the logits (n, V) at the positions of one suffix (n, D), or at its `num_last` last ones.

        They may be NaN or infinite.

        Args:
            suffix: See `generate`.
            positions: See `generate`.
            num_last: Number of positions, 0 for all.

        Raises:
            ValueError: If `suffix` is empty.
        """
        _, mask = self._prompts([suffix])
        inputs = {} if positions is None else {POSITIONS: positions[..., len(self) :]}
        with torch.inference_mode(), self._continuing():
            logits: Tensor = self.model(
                inputs_embeds=suffix[None],
                attention_mask=mask,
                use_cache=True,
                logits_to_keep=num_last,
                **inputs,
                **{CACHE_ARGUMENT: self._fork(1)},
            ).logits
        return logits[0, -num_last:]  # some classes compute all of them

    def _prefill_with(self, inputs: Mapping[str, Tensor]) -> None:
        """Run the model itself on the prefix: it, not its layers, reads some of the inputs."""
        mask = torch.ones(1, len(self), dtype=torch.long, device=self.prefix.device)
        named = {"attention_mask": mask, **inputs, CACHE_ARGUMENT: self._cache}
        self.model(inputs_embeds=self.prefix[None], use_cache=True, logits_to_keep=1, **named)

    def _placed(self, positions: Sequence[Tensor | None] | None, length: int) -> dict[str, Tensor]:
        """Return the positions (..., B, P + n) of prompts padded between prefix and suffix, by name; empty if None."""
        given = [one for one in positions or () if one is not None]
        if not given:
            return {}
        prefix, rest = zip(*(one.split([len(self), one.shape[-1] - len(self)], dim=-1) for one in given), strict=True)
        padded = [F.pad(one, (length - len(self) - one.shape[-1], 0)) for one in rest]
        rows = [torch.cat(pair, dim=-1) for pair in zip(prefix, padded, strict=True)]
        return {POSITIONS: torch.cat(rows, dim=-2)}

    def _continuing(self) -> AbstractContextManager[None]:
        if self._steps is None or self.compressed is None:
            return nullcontext()
        return self._steps.continuing(self.compressed)

    def _prompts(self, suffixes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Build whole prompts (B, P + n, D) and their mask; padding of shorter suffixes follows the prefix."""
        if any(suffix.shape[0] < 1 for suffix in suffixes):
            raise ValueError("every suffix must have at least one position, got an empty one")
        longest = max(suffix.shape[0] for suffix in suffixes)
        missing = [longest - suffix.shape[0] for suffix in suffixes]
        padded = [F.pad(suffix, (0, 0, count, 0)) for suffix, count in zip(suffixes, missing, strict=True)]
        embeds = torch.stack([torch.cat([self.prefix, suffix]) for suffix in padded])
        column = torch.arange(len(self) + longest) - len(self)
        mask = (column < 0) | (column >= torch.tensor(missing)[:, None])
        return embeds, mask.long().to(embeds.device, non_blocking=True)

    def _fork(self, count: int) -> DynamicCache:
        """Fork the cache of the prefix for `count` prompts; a fork for one prompt shares the tensors of the prefix.

        Appending makes new tensors, so the session's own cache does not change.
        """
        fork = copy.copy(self._cache)
        fork.layers = [copy.copy(layer) for layer in self._cache.layers]
        if count > 1:
            fork.batch_repeat_interleave(count)
        return fork
