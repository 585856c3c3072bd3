"""Attention for packed questions, without computing what no token sees.

Half of a packed prompt is questions, which do not see each other. A mask would do too, but then all pairs are computed;
here only prefix with itself, each question with the prefix, and each question with itself. It is registered with
transformers under a separate name, so the model stays as it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "packed_questions"


@dataclass(frozen=True, eq=False)
class Blocks:
    """The places of the questions.

    Attributes:
        prefix: Tokens before the first question, P.
        padded: (m, n) place after the prefix of each token of m questions, padded to n by repeating some token.
        restore: (Q,) index of each token after the prefix in `padded`, flattened.
    """

    prefix: int
    padded: Tensor
    restore: Tensor

    @classmethod
    def of(cls, prefix: int, lengths: list[int], device: torch.device) -> "Blocks":
        """Blocks of questions of the given lengths."""
        longest, total = max(lengths), sum(lengths)
        starts = torch.tensor([0, *lengths]).cumsum(0)[:-1]
        padded = (starts[:, None] + torch.arange(longest)).clamp(max=total - 1)
        restore = torch.cat([torch.arange(length) + row * longest for row, length in enumerate(lengths)])
        return cls(prefix, padded.to(device), restore.to(device))


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    blocks: Blocks | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attention of transformers' form: (B, heads, L, d) to (B, L, heads, d).

    Raises:
        ValueError: If no `blocks` were handed to the model, or a mask or dropout was.
    """
    del module, others
    if blocks is None or attention_mask is not None or dropout:
        raise ValueError("packed attention needs blocks, and takes neither a mask nor dropout")
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    (early, query), (early_key, key), (early_value, value) = (
        (x[:, :, : blocks.prefix], x[:, :, blocks.prefix :]) for x in (query, key, value)
    )
    early = _weights(_hide_future(early @ early_key.transpose(-1, -2)), scaling, value) @ early_value
    query, key, value = (x[:, :, blocks.padded] for x in (query, key, value))  # (B, heads, m, n, d)
    own = _hide_future(query @ key.transpose(-1, -2)).flatten(2, 3)  # (B, heads, m*n, n)
    shared = query.flatten(2, 3) @ early_key.transpose(-1, -2)  # (B, heads, m*n, P)
    weights = _weights(torch.cat([shared, own], dim=-1), scaling, value)
    late = weights[..., : blocks.prefix] @ early_value
    late = late + (weights[..., blocks.prefix :].unflatten(2, query.shape[2:4]) @ value).flatten(2, 3)
    return torch.cat([early, late[:, :, blocks.restore]], dim=2).transpose(1, 2), None


def _hide_future(scores: Tensor) -> Tensor:
    """Scores (..., n, n), minus infinity where a token would see a later one."""
    size = scores.shape[-1]
    return scores.masked_fill(torch.ones(size, size, dtype=torch.bool, device=scores.device).triu(1), float("-inf"))


def _weights(scores: Tensor, scaling: float, like: Tensor) -> Tensor:
    return (scores.float() * scaling).softmax(dim=-1).to(like.dtype)


def register() -> None:
    """Make `packed_attention` known to transformers as `NAME`."""
    AttentionInterface.register(NAME, packed_attention)
