"""When an answer ends."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from transformers import StoppingCriteria

from stgridpool.stage_timer import StageTimer


def cut(text: str, until: Iterable[str]) -> str:
    """The answer without white space around it, up to the first of the texts `until`."""
    text = text.strip()
    ends = [position for word in until if (position := text.find(word)) >= 0]
    return text[: min(ends)].rstrip() if ends else text


class FirstToken(StoppingCriteria):
    """Never stops; ends the stage in `stages` after the first token and begins "generate"."""

    def __init__(self, stages: ExitStack, timer: StageTimer) -> None:
        self._stages, self._timer = stages, timer
        self._seen = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        """False for every sequence."""
        if not self._seen:
            self._seen = True
            self._stages.close()
            self._stages.enter_context(self._timer.stage("generate"))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class Limits(StoppingCriteria):
    """Stops each answer by criteria of its own, and after a number of tokens of its own.

    Args:
        criteria: Those of each answer.
        max_new_tokens: Most tokens of each answer.

    Attributes:
        lengths: Tokens after which each answer was stopped; None if it was not, or if several beams were searched.
    """

    def __init__(self, criteria: Sequence[Sequence[StoppingCriteria]], max_new_tokens: Sequence[int]) -> None:
        self._criteria, self._max_new_tokens = criteria, max_new_tokens
        self.lengths: list[int | None] = [None] * len(criteria)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Which sequences (B,) are done; `input_ids` (B, m) are the new tokens."""
        rows, length = input_ids.shape
        rows_per_answer = rows // len(self._criteria)
        done = []
        for row in range(rows):
            answer = row // rows_per_answer
            is_done = length >= self._max_new_tokens[answer] or any(
                bool(torch.as_tensor(criterion(input_ids[row : row + 1], scores, **kwargs)).any())
                for criterion in self._criteria[answer]
            )
            if is_done and self.lengths[answer] is None and rows_per_answer == 1:
                self.lengths[answer] = length
            done.append(is_done)
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


class Until(StoppingCriteria):
    """Stops a sequence whose text holds one of the words; it sees new tokens only."""

    def __init__(self, words: tuple[str, ...], tokenizer: Any) -> None:
        self._words, self._tokenizer = words, tokenizer

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        """Which sequences (B,) hold a word."""
        texts = self._tokenizer.batch_decode(input_ids, skip_special_tokens=True) if self._words else [""]
        done = [any(word in text.lstrip() for word in self._words) for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device).expand(input_ids.shape[0])
