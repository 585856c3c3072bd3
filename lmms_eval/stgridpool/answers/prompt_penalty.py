"""PromptPenalty: a checkpoint's repetition penalty, counting the ids of the prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, RepetitionPenaltyLogitsProcessor


class PromptPenalty(LogitsProcessor):
    """Penalises ids of the prompt and of the answer so far, as transformers does for models that get ids.

    We generate from embeddings, where transformers sees the ids of the answer alone.

    Args:
        prompts: (n_i,) ids of each prompt of a batch; with several beams each has as many rows.
        penalty: The factor, above 0.
    """

    def __init__(self, prompts: Sequence[torch.Tensor], penalty: float) -> None:
        longest = max(map(len, prompts))
        # Shorter prompts repeat their last id, which changes nothing: an id is penalised once.
        self._prompts = torch.stack([torch.cat([ids, ids[-1:].expand(longest - len(ids))]) for ids in prompts])
        self._plain: Any = RepetitionPenaltyLogitsProcessor(float(penalty))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the penalised scores (B, V); `input_ids` (B, m) are the new tokens."""
        rows = self._prompts.to(scores.device).repeat_interleave(len(scores) // len(self._prompts), dim=0)
        penalised: torch.Tensor = self._plain(torch.cat([rows, input_ids.to(rows)], dim=1), scores)
        return penalised


def penalty_options(language_model: Any, prompts: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Return options for ``generate`` that count the prompts; none if the checkpoint has no penalty.

    Args:
        language_model: A causal language model of transformers.
        prompts: See `PromptPenalty`.
    """
    penalty = language_model.generation_config.repetition_penalty
    if penalty in (None, 1):
        return {}
    return {"repetition_penalty": 1.0, "logits_processor": [PromptPenalty(prompts, penalty)]}
