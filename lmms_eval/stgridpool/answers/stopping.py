"""Stopping criteria: when an answer ends."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from transformers import StoppingCriteria

from stgridpool.timing import StageTimer


def cut(text: str, until: Iterable[str]) -> str:
    """Strip an answer and cut it at the first of the texts `until`."""
    text = text.strip()
    ends = [position for word in until if (position := text.find(word)) >= 0]
    return text[: min(ends)].rstrip() if ends else text


class FirstToken(StoppingCriteria):
    """Never stops; after the first token it ends the stage in `stages` and begins the stage "generate"."""

    def __init__(self, stages: ExitStack, timer: StageTimer) -> None:
        self._stages, self._timer = stages, timer
        self._seen = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        """Return False for every sequence."""
        if not self._seen:
            self._seen = True
            self._stages.close()
            self._stages.enter_context(self._timer.stage("generate"))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class Limits(StoppingCriteria):
    """Stops each answer by its own criteria and at its own maximum length.

    Args:
        criteria: The criteria for each answer.
        max_new_tokens: Maximum length of each answer, in tokens.

    Attributes:
        lengths: Number of tokens at which each answer was stopped; None if it was not stopped, or with several beams.
    """

    def __init__(self, criteria: Sequence[Sequence[StoppingCriteria]], max_new_tokens: Sequence[int]) -> None:
        self._criteria, self._max_new_tokens = criteria, max_new_tokens
        self.lengths: list[int | None] = [None] * len(criteria)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Tell which sequences (B,) are done; `input_ids` (B, m) are the new tokens."""
        rows, length = input_ids.shape
        rows_per_answer = rows // len(self._criteria)
        ids = input_ids.cpu()  # once for all criteria, each of which would wait for the device
        done = []
        for row in range(rows):
            answer = row // rows_per_answer
            is_done = length >= self._max_new_tokens[answer] or any(
                bool(torch.as_tensor(criterion(ids[row : row + 1], scores, **kwargs)).any())
                for criterion in self._criteria[answer]
            )
            if is_done and self.lengths[answer] is None and rows_per_answer == 1:
                self.lengths[answer] = length
            done.append(is_done)
        return torch.tensor(done, dtype=torch.bool).to(input_ids.device, non_blocking=True)


class Decoding(Protocol):
    """A tokenizer, as far as `Until` uses it."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str | list[str]:
        """Turn ids into text."""


class Until(StoppingCriteria):
    """Stops a sequence as soon as its new text contains one of the words.

    It is called after each token, so a word that has just become complete ends in the last token. It therefore decodes
    only as many tokens as the longest word can fill. If these contain a word, it decodes the whole text, because white
    space at the beginning does not count.
    """

    def __init__(self, words: tuple[str, ...], tokenizer: Decoding) -> None:
        self._words, self._tokenizer = words, tokenizer
        self._tail = 1 + max((len(word.encode()) for word in words), default=0)  # a token is at least one byte

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        """Tell which sequences (B,) contain a word."""
        done = [self._is_complete(ids) for ids in input_ids.tolist()]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _is_complete(self, ids: list[int]) -> bool:
        found = [word for word in self._words if word in self._text(ids[-self._tail :])]
        return bool(found) and any(word in self._text(ids).lstrip() for word in found)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
