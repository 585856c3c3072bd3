"""Optimal transport of a few points, by hand; gathering over time."""

import torch

from stgridpool.algorithms.transport import gather_over_time, transport


def test_everything_goes_where_it_costs_nothing():
    """Three sources and three targets that fit each other; and equal costs, which spread all evenly."""
    fitting = transport(10 * (1 - torch.eye(3))[None])
    torch.testing.assert_close(fitting, torch.eye(3)[None] / 3, atol=1e-5, rtol=0)
    torch.testing.assert_close(transport(torch.full((2, 4, 5), 0.7)), torch.full((2, 4, 5), 1 / 20))


def test_rows_and_columns_add_up():
    """The last scaling is that of columns, which is therefore exact."""
    cost = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(0))
    moved = transport(cost)
    torch.testing.assert_close(moved.sum(1), torch.full((2, 4), 1 / 4))
    torch.testing.assert_close(moved.sum(2), torch.full((2, 6), 1 / 6), atol=0.01, rtol=0)
    assert transport(torch.full((1, 2, 2), 1e6)).isfinite().all()


def test_what_is_usual_is_gathered():
    """Frames of 2, 2 and 1 tokens, the last a segment of its own. (2, 0) and (1, 1) come to (1, 0) and (0, 1)."""
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [5.0, 5.0]])
    rows, places = gather_over_time(values, [2, 2, 1], [2, 1], keep=0.5)
    assert places.tolist() == [0, 1, 2, 0, 1, 4]
    out = rows.draw([values])
    assert out[[0, 1, 2, 5]].tolist() == values[[0, 1, 2, 4]].tolist()
    assert 1.4 < float(out[3, 0]) <= 1.5  # nearly all of (2, 0) comes to (1, 0)
    torch.testing.assert_close(rows.draw([torch.ones(5, 1)]), torch.ones(6, 1))
