"""VideoSession: one video, many questions, and the part that their prompts share prefilled once.

The video stands before the question in every prompt, so ``[system + video]`` is a prefix of all prompts about it. Its
keys and values are computed once; every question, or a batch of them, goes on from a fork of that cache. The positions
and the arithmetic are those of whole prompts, so the answers are the same up to rounding.

Only for compressors that do not look at the question, and for models whose cache grows by appending (any decoder of
transformers that attends to all earlier positions). Steps inside the language model shorten the prefix once; every
question goes on from layers of unequal length.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

from stgridpool.decoder.kv_cache import CACHE_ARGUMENT
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import CompressedPrompts, DecoderSteps
from stgridpool.finite import LogitsWatch, StageCheck


class PrefixCache(DynamicCache):
    """A cache that tells its length in positions of the whole prompt, also where a step at layer 0 left fewer there.

    ``generate`` asks for that length to find the part of a prompt that is new.

    Attributes:
        num_removed: Positions of the prompt that layer 0 does not hold.
    """

    num_removed: int = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions seen so far."""
        return super().get_seq_length(layer_idx) + (self.num_removed if layer_idx == 0 else 0)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Positions that a layer holds."""
        return super().get_seq_length(layer_idx)


class VideoSession:
    """The prefix of all prompts about a video, prefilled.

    Args:
        model: A causal language model of transformers.
        prefix: (P, D) embeddings of what all prompts begin with, video included; P is at least 1.
        steps: What acts inside the language model, or None.
        spans: Where the prefix holds videos, for `steps`.

    Attributes:
        compressed: What became of the prefix inside the language model; None without `steps`.

    Raises:
        ValueError: If `prefix` is empty or has another shape, the model's cache does not grow by appending, or a step
            looks at the question.
    """

    def __init__(
        self, model: Any, prefix: Tensor, steps: DecoderSteps | None = None, spans: Sequence[VisualSpan] = ()
    ) -> None:
        if prefix.dim() != 2 or prefix.shape[0] < 1:
            raise ValueError(f"prefix must be (positions, width) with at least one position, got {tuple(prefix.shape)}")
        if steps is not None and steps.query_aware:
            aware = [repr(step.compressor) for step in steps.steps if step.compressor.query_aware]
            raise ValueError(
                f"{', '.join(aware)} looks at the question, so that questions share no prefix: run every prompt as a "
                "whole inside DecoderSteps.prompts"
            )
        self.model = model
        self.prefix = prefix
        self._steps = steps
        self._cache = PrefixCache(config=model.config)
        if not all(type(layer) is DynamicLayer for layer in self._cache.layers):
            kinds = sorted({type(layer).__name__ for layer in self._cache.layers})
            raise ValueError(f"a prefix can be shared where every layer keeps all positions, got layers of {kinds}")
        self.compressed: CompressedPrompts | None = None
        with torch.inference_mode(), nullcontext() if steps is None else steps.prompts([spans]) as self.compressed:
            model.base_model(inputs_embeds=prefix[None], use_cache=True, **{CACHE_ARGUMENT: self._cache})
        self._cache.num_removed = len(self) - self._cache.get_query_offset(0)

    def __len__(self) -> int:
        return self.prefix.shape[0]

    def layer_lengths(self) -> list[int]:
        """Cache entries of the prefix in each layer."""
        return [self._cache.get_query_offset(index) for index in range(len(self._cache.layers))]

    def generate(self, suffixes: Sequence[Tensor], watch: LogitsWatch | None = None, **options: Any) -> Tensor:
        """Continue several prompts as one batch.

        Args:
            suffixes: (n_i, D) embeddings of what follows the prefix in each prompt, each at least one position.
            watch: Notes which answers come from logits that are not finite, for a caller that reads it together with
                the answers; without it, an error is raised.
            **options: Of transformers' ``generate``. Stopping criteria and logits processors see new tokens only.

        Returns:
            What ``generate`` returns: (B, m) ids of the new tokens, rows that end earlier filled with padding.

        Raises:
            ValueError: If a suffix is empty.
            NonFiniteError: If an answer comes from logits that are not finite.
        """
        own_watch = watch or LogitsWatch(self.model)
        embeds, mask = self._prompts(suffixes)
        # transformers searches or samples several continuations of a prompt as so many rows.
        rows_per_prompt = max(options.get("num_beams") or 1, options.get("num_return_sequences") or 1)
        cache = self._fork(len(suffixes) * rows_per_prompt)
        with torch.inference_mode(), self._continuing(), own_watch.attached():
            # The mixin's own method, since a model may take only ids in its `generate`. It wants whole prompts and
            # skips what the cache holds.
            output: Any = GenerationMixin.generate(
                self.model, inputs_embeds=embeds, attention_mask=mask, **{CACHE_ARGUMENT: cache}, **options
            )
            if watch is None:
                own_watch.check([StageCheck.of("embeddings of the prefix", self.prefix)])
        return output

    def logits(self, suffix: Tensor, num_last: int = 0) -> Tensor:
        """Logits (n, V) at the positions of one suffix (n, D), or at the `num_last` last of them, finite or not.

        Raises:
            ValueError: If `suffix` is empty.
        """
        _, mask = self._prompts([suffix])
        with torch.inference_mode(), self._continuing():
            return self.model(
                inputs_embeds=suffix[None],
                attention_mask=mask,
                use_cache=True,
                logits_to_keep=num_last,
                **{CACHE_ARGUMENT: self._fork(1)},
            ).logits[0]

    def _continuing(self) -> AbstractContextManager[None]:
        if self._steps is None or self.compressed is None:
            return nullcontext()
        return self._steps.continuing(self.compressed)

    def _prompts(self, suffixes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Whole prompts (B, P + n, D) and their mask; shorter suffixes are padded on the left, behind the prefix."""
        if any(suffix.shape[0] < 1 for suffix in suffixes):
            raise ValueError("every question needs at least one position behind the prefix")
        longest = max(suffix.shape[0] for suffix in suffixes)
        missing = [longest - suffix.shape[0] for suffix in suffixes]
        padded = [F.pad(suffix, (0, 0, count, 0)) for suffix, count in zip(suffixes, missing, strict=True)]
        embeds = torch.stack([torch.cat([self.prefix, suffix]) for suffix in padded])
        column = torch.arange(len(self) + longest) - len(self)
        mask = (column < 0) | (column >= torch.tensor(missing)[:, None])
        return embeds, mask.long().to(embeds.device, non_blocking=True)

    def _fork(self, count: int) -> DynamicCache:
        """A cache for `count` prompts that begins with the prefix; for one, the prefix's tensors are shared.

        Appending makes new tensors, so the session's own cache stays as it is.
        """
        fork = copy.copy(self._cache)
        fork.layers = [copy.copy(layer) for layer in self._cache.layers]
        if count > 1:
            fork.batch_repeat_interleave(count)
        return fork
