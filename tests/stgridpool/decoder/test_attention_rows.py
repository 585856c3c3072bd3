"""Attention of chosen rows, against a plain softmax over everything."""

import pytest
import torch

from stgridpool.decoder import attention_rows
from stgridpool.decoder.attention_rows import attention_received


def expected(queries, keys, rows, columns, reduce):
    """One head, one row after the other."""
    weights = []
    for head, query in enumerate(queries):
        own = keys[head // (len(queries) // len(keys))]
        for place, vector in zip(rows.tolist(), query, strict=True):
            scores = (own[: place + 1] @ vector * 0.3).exp()
            weights.append(torch.nn.functional.pad(scores / scores.sum(), (0, keys.shape[1] - place - 1)))
    stacked = torch.stack(weights)[:, columns]
    return stacked.mean(dim=0) if reduce == "mean" else stacked.amax(dim=0)


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("most", [1, 500, 1 << 24])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)], ids=str)
def test_rows_of_grouped_heads_in_blocks(monkeypatch, heads, most, reduce):
    monkeypatch.setattr(attention_rows, "MOST_ENTRIES", most)
    queries, keys = torch.randn(heads[0], 5, 8), torch.randn(heads[1], 20, 8)
    rows, columns = torch.tensor([19, 3, 10, 11, 18]), torch.tensor([2, 3, 9, 12, 0])
    found = attention_received(queries, keys, rows, columns, 0.3, reduce)
    torch.testing.assert_close(found, expected(queries, keys, rows, columns, reduce))


def test_half_precision_is_computed_in_float32():
    queries, keys = torch.randn(2, 1, 8).bfloat16(), torch.randn(2, 9, 8).bfloat16()
    columns = torch.arange(9)
    found = attention_received(queries, keys, torch.tensor([8]), columns, 0.3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected(queries.float(), keys.float(), torch.tensor([8]), columns, "mean"))
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))
