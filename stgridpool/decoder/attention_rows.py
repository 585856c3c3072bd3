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
from stgridpool.evidence import QueryAttention

MOST_ENTRIES = 1 << 24
"""Attention weights that are in memory at a time: 64 MB."""


def attention_to(
    decoder: Decoder, need: QueryAttention, hidden: Tensor, tables: Tables, spans: Sequence[VisualSpan], end: int
) -> list[Tensor]:
    """Return the attention (N,) float32 that each video of a prompt receives in a layer.

    Args:
        decoder: The layers.
        need: What is wanted.
        hidden: (n, D), what enters the layer, without padding.
        tables: Rotary tables (n, d) of the prompt.
        spans: Its videos.
        end: Position at which the question ends.

    Raises:
        ValueError: If the text behind the last video is asked for, and there is none.
    """
    start = end - 1
    if need.rows == "question":
        start = 1 + max(int(torch.cat([span.tokens, span.newlines]).max()) for span in spans)
    if start >= end:
        raise ValueError(f"{need!r} needs text behind the last video, got a prompt that ends with it")
    rows = torch.arange(start, end, device=hidden.device)
    queries = decoder.queries(need.layer, hidden[rows], (tables[0][rows], tables[1][rows]))
    keys = decoder.keys(need.layer, hidden, tables)
    columns = torch.cat([span.tokens for span in spans]).to(keys.device)
    received = attention_received(
        queries, keys, rows.to(keys.device), columns, decoder.scaling(need.layer), need.reduce
    )
    return list(received.split([len(span.tokens) for span in spans]))


def attention_received(
    queries: Tensor, keys: Tensor, rows: Tensor, columns: Tensor, scaling: float, reduce: str = "mean"
) -> Tensor:
    """Return the attention that positions receive from rows of a prompt, reduced over heads and rows: (N,) float32.

    Every row attends to all positions up to its own: the softmax is over all of them, whatever `columns` says.

    Args:
        queries: (h, r, d) of the rows, after rotary embedding.
        keys: (g, n, d) of the whole prompt, without padding, after rotary embedding.
        rows: (r,) int64, the position of each row.
        columns: (N,) int64, the positions looked at.
        scaling: Factor of the products of queries and keys.
        reduce: "mean" or "max".
    """
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
