"""Attention of chosen rows, against a plain softmax over everything."""

import pytest
import torch

from stgridpool.decoder import attention_rows
from stgridpool.decoder.attention_rows import attention_received, relevant_rows
from stgridpool.decoder.shortened_prompt import VisualSpan

NONE = torch.empty(0, dtype=torch.long)


def expected(queries, keys, rows, columns, reduce):
    """One head, one row after the other."""
    weights = []
    for head, query in enumerate(queries):
        own = keys[head // (len(queries) // len(keys))]
        for place, vector in zip(rows.tolist(), query, strict=True):
            scores = (own[: place + 1] @ vector * 0.3).exp()
            weights.append(torch.nn.functional.pad(scores / scores.sum(), (0, keys.shape[1] - place - 1)))
    stacked = torch.stack(weights)[:, columns]
    if reduce == "none":
        return stacked.T.unflatten(1, (len(queries), -1))
    return stacked.mean(dim=0) if reduce == "mean" else stacked.amax(dim=0)


@pytest.mark.parametrize("reduce", ["mean", "max", "none"])
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


def prompt_of(visual, text):
    """Two videos, the tokens of the second in reverse, a newline between them, and the question."""
    hidden = torch.tensor([[9.0, 9.0], *visual[:2], [5.0, 5.0], *visual[2:], *text])
    first = VisualSpan(torch.tensor([1, 2]), (1, 1, 2), torch.tensor([3]))
    return hidden, [first, VisualSpan(torch.tensor([5, 4]), (1, 1, 2), NONE)]


def test_relevant_rows_are_those_above_the_mean_share():
    """Shares by hand: (0.6, 0.2, 0.2) from three tokens, (0.2, 0.2, 0.6) from the fourth; their mean has 0.5 first."""
    toward_first, toward_last = [1.0, 0.0], [0.0, 1.0]
    log_3 = torch.tensor(3.0).log().item()
    text = [[log_3, 0.0], [0.0, 0.0], [0.0, log_3]]
    hidden, spans = prompt_of([toward_first, toward_first, toward_last, toward_first], text)
    assert relevant_rows(hidden, spans, 9, "me").tolist() == [True, False, False]
    hidden, spans = prompt_of([toward_first, toward_last, toward_last, toward_first], text)
    assert relevant_rows(hidden, spans, 9, "me").tolist() == [True, False, True]
    assert relevant_rows(hidden.bfloat16(), spans, 8, "me").tolist() == [True, False]  # the rest is an answer
    assert relevant_rows(hidden, spans, 7, "me").tolist() == [True]  # a single token is as relevant as all
    with pytest.raises(ValueError, match="'me' needs text after the last video, got a prompt that ends with the video"):
        relevant_rows(hidden, spans, 6, "me")
