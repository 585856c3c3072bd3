"""Attention from a few rows of a prompt to its visual tokens, computed from queries and keys of a decoder layer.

Only the requested rows are computed, in blocks and in float32, so that memory stays small for long prompts.

Letters: h heads, g key heads (h is a multiple of g), r rows, n positions, d width of a head, N positions attended to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stgridpool.decoder.decoder import Decoder, Tables
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.evidence import QueryAttention, QueryRows

MOST_ENTRIES = 1 << 24
"""Most attention weights in memory at a time: 64 MB."""


def attention_to(
    decoder: Decoder,
    need: QueryRows,
    hidden: Tensor,
    tables: Tables,
    spans: Sequence[VisualSpan],
    end: int,
    is_relevant: Tensor | None = None,
) -> list[Tensor]:
    """Return what `need` names for the tokens of each video in a prompt, attention or its bias: (N, ...) float32.

    Args:
        decoder: The decoder that has the layer.
        need: The layer, the rows and the reduction.
        hidden: (n, D), the input of the layer, without padding.
        tables: Rotary tables (n, d) of the prompt.
        spans: The videos of the prompt.
        end: Position after the last token of the question.
        is_relevant: (r,) bool, the rows of the question that "relevant" means, see `relevant_rows`.

    Raises:
        ValueError: If `need` concerns the text after the last video and there is none.
    """
    start = end - 1 if need.rows == "last" else _question_start(spans, end, need)
    rows = torch.arange(start, end, device=hidden.device)
    if need.rows == "relevant" and is_relevant is not None:
        rows = rows[is_relevant.to(rows.device)]
    columns = torch.cat([span.tokens for span in spans])
    of_rows, scaling = (tables[0][rows], tables[1][rows]), decoder.scaling(need.layer)
    if isinstance(need, QueryAttention):
        queries = decoder.queries(need.layer, hidden[rows], of_rows)
        keys = decoder.keys(need.layer, hidden, tables)
        rows, columns = rows.to(keys.device), columns.to(keys.device)
        found = attention_received(queries, keys, rows, columns, scaling, need.reduce)
    else:
        ones = hidden.new_ones(1, len(hidden), tables[0].shape[-1])
        rotated = decoder.rotate(need.layer, ones, tables)[0].float()
        found = rotated[columns.to(rotated.device)] @ rotated[rows].T * scaling  # (N, r)
    return list(found.split([len(span.tokens) for span in spans]))


def relevant_rows(hidden: Tensor, spans: Sequence[VisualSpan], end: int, asker: object) -> Tensor:
    """Tell which tokens of a question match the videos of its prompt better than average: (r,) bool.

    The softmax of its products with the tokens shares out each visual token among them; a token is relevant if its mean
    share is above the mean over the question. If all shares are equal, as for a single token, all tokens are relevant.

    Args:
        hidden: (n, D), the input of the language model, without padding.
        spans: The videos of the prompt.
        end: Position after the last token of the question.
        asker: The method or need, for the message.

    Raises:
        ValueError: If there is no text after the last video.
    """
    visual = hidden[torch.cat([span.tokens for span in spans])].float()
    text = hidden[_question_start(spans, end, asker) : end].float()
    share = (visual @ text.T).softmax(dim=-1).mean(dim=0)  # (r,)
    is_relevant = share > share.mean()
    return is_relevant if bool(is_relevant.any()) else torch.ones_like(is_relevant)


def _question_start(spans: Sequence[VisualSpan], end: int, asker: object) -> int:
    """Return the position of the first token after the last video.

    Raises:
        ValueError: If there is none.
    """
    start = 1 + max(int(torch.cat([span.tokens, span.newlines]).max()) for span in spans)
    if start >= end:
        raise ValueError(f"{asker!r} needs text after the last video, got a prompt that ends with the video")
    return start


def attention_received(
    queries: Tensor, keys: Tensor, rows: Tensor, columns: Tensor, scaling: float, reduce: str = "mean"
) -> Tensor:
    """Return the attention that positions receive from rows of a prompt: float32.

    Every row attends to all positions up to its own; the softmax is over all of them, not only over `columns`.

    Args:
        queries: (h, r, d) of the rows, after rotary embedding.
        keys: (g, n, d) of the whole prompt, without padding, after rotary embedding.
        rows: (r,) int64, the position of each row.
        columns: (N,) int64, the positions to report.
        scaling: Factor of the products of queries and keys.
        reduce: How to reduce over heads and rows, "mean" or "max": (N,); "none" for (N, h, r).
    """
    if reduce == "none":
        blocks = [weights[..., columns] for weights in _blocks(queries, keys, rows, scaling)]
        return torch.cat(blocks, dim=1).permute(2, 0, 1)
    sums = torch.zeros(len(columns), device=keys.device)
    for weights in _blocks(queries, keys, rows, scaling):  # (h, rows of the block, n)
        received = weights[..., columns].flatten(0, 1)
        sums = torch.maximum(sums, received.amax(dim=0)) if reduce == "max" else sums + received.sum(dim=0)
    return sums if reduce == "max" else sums / (queries.shape[0] * len(rows))


def _blocks(queries: Tensor, keys: Tensor, rows: Tensor, scaling: float) -> Iterator[Tensor]:
    """Yield attention weights (h, b, n) float32 for blocks of b rows."""
    num_heads, num_rows, width = queries.shape
    groups, length, _ = keys.shape
    grouped = queries.float().view(groups, num_heads // groups, num_rows, width)
    transposed = keys.float().transpose(1, 2)[:, None]  # (g, 1, d, n)
    position = torch.arange(length, device=keys.device)
    size = max(1, MOST_ENTRIES // (num_heads * length))
    for start in range(0, num_rows, size):
        products = grouped[:, :, start : start + size] @ transposed * scaling  # (g, h / g, b, n)
        is_later = position > rows[start : start + size, None]  # (b, n)
        yield products.masked_fill(is_later, -torch.inf).softmax(dim=-1).flatten(0, 1)
