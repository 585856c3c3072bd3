"""Arguments of ``generate`` for compressed prompts, and its output with the original prompts restored.

Letters: B prompts, R rows of a running generation (a multiple of B), L positions before and M after compression.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from stgridpool.adapters.prompt import CompressedPrompt

REFUSED: dict[str, str] = {
    "assistant_model": "assisted decoding checks candidates against the ids of the prompt, not against its embeddings",
    "prompt_lookup_num_tokens": "prompt lookup takes its first step from the ids of the prompt, not its embeddings",
    "assistant_early_exit": "assisted decoding checks candidates against the ids of the prompt, not its embeddings",
    "prefill_chunk_size": "prefilling in chunks takes the ids of the prompt, not its embeddings",
    "negative_prompt_ids": "classifier-free guidance runs the model on ids alone",
    "custom_generate": "custom loops may read the ids of the prompt instead of its embeddings",
    "position_ids": "the positions of a compressed prompt are computed here",
    "inputs_embeds": "the embeddings of a compressed prompt are computed here",
    "mm_encoder_outputs": "the videos must come as the processor's output",
    "labels": "labels have the length of the prompt before compression",
}
"""Arguments whose answers would be silently wrong, and why."""


def check_arguments(arguments: Mapping[str, Any], *configs: Any) -> None:
    """Check that nothing in a call would give wrong answers with a compressed prompt.

    Args:
        arguments: The arguments of the call.
        *configs: Generation configurations that hold for it, the model's own first; None for one that is not given.

    Raises:
        ValueError: If something would; the message says what and why.
    """
    for name, reason in REFUSED.items():
        given = [arguments.get(name), *(getattr(config, name, None) for config in configs)]
        if any(value is not None for value in given):
            raise ValueError(f"{name} does not work with compressed prompts: {reason}; leave it out")
    scales = [
        arguments.get("guidance_scale"),
        *(getattr(config, "guidance_scale", None) for config in reversed(configs)),
    ]
    scale = next((one for one in scales if one is not None), 1)
    if scale != 1:
        raise ValueError(
            f"guidance_scale={scale} does not work with compressed prompts: {REFUSED['negative_prompt_ids']}"
        )


def shifted_lengths(arguments: Mapping[str, Any], default: Any, prompt: CompressedPrompt) -> dict[str, Any]:
    """Return the arguments, with lengths of the whole output reduced by the number of positions removed.

    Args:
        arguments: Arguments of ``generate``.
        default: The model's generation configuration.
        prompt: The compressed prompts.
    """
    changed = dict(arguments)
    config = changed.get("generation_config")
    for name, in_place_of in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        given = [changed.get(name), getattr(config, name, None), getattr(default, name, None)]
        length = next((value for value in given if value is not None), None)
        counted = [changed.get(in_place_of), getattr(config, in_place_of, None)]
        if length and all(value is None for value in counted):
            changed[name] = max(0, length - prompt.num_removed)
    if config is None:
        return changed
    config = changed["generation_config"] = copy.deepcopy(config)
    for name in ("max_length", "min_length"):  # transformers deprecates arguments beside a configuration
        if name in changed:
            setattr(config, name, changed.pop(name))
    return changed


@dataclass(frozen=True, eq=False)
class Restored:
    """Shows users' own code the original prompt in place of the compressed one.

    Attributes:
        prompt: The compressed prompts.
    """

    prompt: CompressedPrompt

    def ids(self, ids: Tensor) -> Tensor:
        """Put the original prompts back before the new tokens: (R, M + n) to (R, L + n)."""
        dense = self.prompt.dense_ids.to(ids.device)
        new = ids[:, self.prompt.visual_mask.shape[1] :]
        return torch.cat([dense.repeat_interleave(len(ids) // len(dense), dim=0), new], dim=1)

    def output(self, output: Any) -> Any:
        """Put the original prompts back into the output of ``generate``."""
        if isinstance(output, Tensor):
            return self.ids(output)
        output.sequences = self.ids(output.sequences)
        return output

    def arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Wrap the logits processors, stopping criteria and streamers among the arguments of ``generate``."""
        changed = dict(arguments)
        if changed.get("logits_processor"):
            wrapped = [_Processor(self, one) for one in changed["logits_processor"]]
            changed["logits_processor"] = LogitsProcessorList(wrapped)
        if changed.get("stopping_criteria"):
            changed["stopping_criteria"] = StoppingCriteriaList(
                [_Criterion(self, one) for one in changed["stopping_criteria"]]
            )
        if changed.get("streamer") is not None:
            changed["streamer"] = _Streamer(self, changed["streamer"])
        allowed: Callable[[int, Tensor], Any] | None = changed.get("prefix_allowed_tokens_fn")
        if allowed is not None:
            changed["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(row, self._of_row(row, ids))
        return changed

    def _of_row(self, row: int, ids: Tensor) -> Tensor:
        """Put the original prompt back before the ids (M + n,) of a row; `row` may count samples of a prompt."""
        compressed, width = self.prompt.inputs["input_ids"].to(ids.device), self.prompt.visual_mask.shape[1]
        same = (compressed == ids[:width]).all(dim=1).nonzero().flatten().tolist()
        dense = self.prompt.dense_ids[row if row in same else same[0]].to(ids.device)
        return torch.cat([dense, ids[width:]])


class _Processor(LogitsProcessor):
    """A logits processor that sees the original prompt."""

    def __init__(self, restored: Restored, processor: Any) -> None:
        self._restored, self._processor = restored, processor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        return self._processor(self._restored.ids(input_ids), scores)


class _Criterion(StoppingCriteria):
    """A stopping criterion that sees the original prompt."""

    def __init__(self, restored: Restored, criterion: Any) -> None:
        self._restored, self._criterion = restored, criterion

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        return self._criterion(self._restored.ids(input_ids), scores, **kwargs)


class _Streamer:
    """A streamer that is given the original prompt first."""

    def __init__(self, restored: Restored, streamer: Any) -> None:
        self._restored, self._streamer, self._is_prompt = restored, streamer, True

    def put(self, value: Tensor) -> None:
        """Pass on the prompt, then each new token."""
        self._streamer.put(self._restored.ids(value) if self._is_prompt else value)
        self._is_prompt = False

    def end(self) -> None:
        """Pass on the end."""
        self._streamer.end()
