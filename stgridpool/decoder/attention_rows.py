"""Attention from a few rows of a prompt to its visual tokens, from the queries and keys of a decoder's layer.

Only the rows asked for are computed, in blocks, in float32, so that memory stays small however long the prompt is.

Letters: h heads, g key heads (h is a multiple of g), r rows, n positions, d width of a head, N positions looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stgridpool.decoder.decoder import Decoder, Tables
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.evidence import QueryAttention, QueryRows

MOST_ENTRIES = 1 << 24
"""Attention weights that are in memory at a time: 64 MB."""


def attention_to(
    decoder: Decoder,
    need: QueryRows,
    hidden: Tensor,
    tables: Tables,
    spans: Sequence[VisualSpan],
    end: int,
    is_relevant: Tensor | None = None,
) -> list[Tensor]:
    """Return what `need` asks for about each video of a prompt in a layer, attention or its bias: (N, ...) float32.

    Args:
        decoder: The layers.
        need: What is wanted.
        hidden: (n, D), what enters the layer, without padding.
        tables: Rotary tables (n, d) of the prompt.
        spans: Its videos.
        end: Position at which the question ends.
        is_relevant: Which rows of the question "relevant" means, see `relevant_rows`.

    Raises:
        ValueError: If the text behind the last video is asked for, and there is none.
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
        turned = decoder.turned(need.layer, ones, tables)[0].float()
        found = turned[columns.to(turned.device)] @ turned[rows].T * scaling  # (N, r)
    return list(found.split([len(span.tokens) for span in spans]))


def relevant_rows(hidden: Tensor, spans: Sequence[VisualSpan], end: int, asker: object) -> Tensor:
    """Tell which tokens of a question match the videos of its prompt better than their average: (r,) bool.

    Every visual token is dealt out over the tokens by the softmax of their products. If all of them match equally, such
    as a single one, all do.

    Args:
        hidden: (n, D), what enters the language model, without padding.
        spans: The videos of the prompt.
        end: Position at which the question ends.
        asker: For the message.

    Raises:
        ValueError: If there is no text behind the last video.
    """
    visual = hidden[torch.cat([span.tokens for span in spans])].float()
    text = hidden[_question_start(spans, end, asker) : end].float()
    share = (visual @ text.T).softmax(dim=-1).mean(dim=0)  # (r,)
    is_relevant = share > share.mean()
    return is_relevant if bool(is_relevant.any()) else torch.ones_like(is_relevant)


def _question_start(spans: Sequence[VisualSpan], end: int, asker: object) -> int:
    """Return the position of the first token behind the last video."""
    start = 1 + max(int(torch.cat([span.tokens, span.newlines]).max()) for span in spans)
    if start >= end:
        raise ValueError(f"{asker!r} needs text behind the last video, got a prompt that ends with it")
    return start


def attention_received(
    queries: Tensor, keys: Tensor, rows: Tensor, columns: Tensor, scaling: float, reduce: str = "mean"
) -> Tensor:
    """Return the attention that positions receive from rows of a prompt: float32.

    Every row attends to all positions up to its own: the softmax is over all of them, whatever `columns` says.

    Args:
        queries: (h, r, d) of the rows, after rotary embedding.
        keys: (g, n, d) of the whole prompt, without padding, after rotary embedding.
        rows: (r,) int64, the position of each row.
        columns: (N,) int64, the positions looked at.
        scaling: Factor of the products of queries and keys.
        reduce: "mean" or "max" over heads and rows: (N,); "none": (N, h, r).
    """
    if reduce == "none":
        blocks = [weights[..., columns] for weights in _blocks(queries, keys, rows, scaling)]
        return torch.cat(blocks, dim=1).permute(2, 0, 1)
    sums = torch.zeros(len(columns), device=keys.device)
    for weights in _blocks(queries, keys, rows, scaling):  # (h, rows of the block, n)
        looked_at = weights[..., columns].flatten(0, 1)
        sums = torch.maximum(sums, looked_at.amax(dim=0)) if reduce == "max" else sums + looked_at.sum(dim=0)
    return sums if reduce == "max" else sums / (queries.shape[0] * len(rows))


def _blocks(queries: Tensor, keys: Tensor, rows: Tensor, scaling: float) -> Iterator[Tensor]:
    """Attention weights (h, b, n) float32, for b rows after b rows."""
    num_heads, num_rows, width = queries.shape
    groups, length, _ = keys.shape
    grouped = queries.float().view(groups, num_heads // groups, num_rows, width)
    turned = keys.float().transpose(1, 2)[:, None]  # (g, 1, d, n)
    position = torch.arange(length, device=keys.device)
    size = max(1, MOST_ENTRIES // (num_heads * length))
    for start in range(0, num_rows, size):
        products = grouped[:, :, start : start + size] @ turned * scaling  # (g, h / g, b, n)
        is_later = position > rows[start : start + size, None]  # (b, n)
        yield products.masked_fill(is_later, -torch.inf).softmax(dim=-1).flatten(0, 1)
