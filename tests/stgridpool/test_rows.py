"""Rows: drawing, taking, multiplying and stacking, against dense matrices."""

import pytest
import torch

from stgridpool.rows import Rows, stacked, sums_of_groups


@pytest.fixture
def mixed(make_rows):
    """Over tables of 3, 1 and 4 rows: all of them, one of them, none, the last alone, the first two."""
    return make_rows([(0, 1.0), (3, 2.0), (7, 3.0)], [(2, -1.0)], [], [(4, 0.5), (6, 4.0)], [(3, 1.0), (1, 1.0)])


SIZES = (3, 1, 4)


def tables(width=2):
    return [torch.randn(size, width) for size in SIZES]


def test_one_table(make_rows):
    rows = make_rows([(0, 1.0), (2, 3.0)], [], [(1, -1.0)])
    assert rows.draw([torch.tensor([[1.0], [10.0], [100.0]])]).flatten().tolist() == [301.0, 0.0, -10.0]
    assert len(rows) == 3


@pytest.mark.parametrize("is_divided", [False, True])
def test_several_tables_share_one_address_space(mixed, matrix, is_divided):
    rows = mixed.divided(SIZES) if is_divided else mixed
    drawn_from = tables()
    before = [table.clone() for table in drawn_from]
    torch.testing.assert_close(rows.draw(drawn_from), matrix(mixed, 8) @ torch.cat(drawn_from))
    for table, copy in zip(drawn_from, before, strict=True):
        assert torch.equal(table, copy)


def test_rows_that_one_table_alone_feeds_are_copied_and_others_added(mixed, make_rows, matrix):
    assert [part.is_first for part in mixed.divided(SIZES).parts] == [True, False, False]
    apart = make_rows([(4, 1.0), (7, 2.0)], [(1, 3.0)], [(3, 1.0)], [(0, 1.0), (2, 1.0)]).divided(SIZES)
    assert [part.is_first for part in apart.parts] == [True, True, True]
    drawn_from = tables()
    torch.testing.assert_close(apart.draw(drawn_from), matrix(apart, 8) @ torch.cat(drawn_from))


@pytest.mark.parametrize("is_divided", [False, True])
@pytest.mark.parametrize("only", [0, 1, 2])
def test_tables_that_nothing_is_drawn_from(make_rows, matrix, only, is_divided):
    first = sum(SIZES[:only])
    rows = make_rows([], [(first, 2.0)], [(first, 1.0), (first + SIZES[only] - 1, 1.0)])
    rows = rows.divided(SIZES) if is_divided else rows
    drawn_from = tables()
    torch.testing.assert_close(rows.draw(drawn_from), matrix(rows, 8) @ torch.cat(drawn_from))


def test_no_entry_at_all(make_rows):
    assert make_rows([], []).draw(tables()).tolist() == [[0.0, 0.0]] * 2
    assert make_rows([], []).draw(tables()[:1]).tolist() == [[0.0, 0.0]] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_selecting_is_exact(dtype):
    index = torch.tensor([7, 0, 3, 7])
    drawn_from = [table.to(dtype) for table in tables(5)]
    whole = torch.cat(drawn_from)
    for rows in (Rows.of(index), Rows.of(index).divided(SIZES)):
        assert torch.equal(rows.draw(drawn_from), whole[index])
    assert torch.equal(Rows.of(index).draw([whole]), whole[index])
    assert Rows.of(index).draw(drawn_from).dtype == dtype


def test_the_identity_does_nothing(mixed, matrix):
    rows = Rows.identity(8, torch.device("cpu"))
    table = torch.randn(8, 2)
    assert rows.draw([table]) is table
    torch.testing.assert_close(rows.draw(parts := tables()), torch.cat(parts))
    assert rows.take(torch.tensor([7, 2])).draw([table]).tolist() == table[[7, 2]].tolist()
    torch.testing.assert_close(matrix(mixed.times(rows), 8), matrix(mixed, 8))
    assert not stacked([rows, rows]).is_identity
    assert not rows.moved(rows.sources.flip(0)).is_identity


def test_weighted(mixed, matrix):
    for rows in (mixed, mixed.divided(SIZES)):
        doubled = rows.weighted(2 * rows.weights)
        torch.testing.assert_close(doubled.draw(parts := tables()), 2 * matrix(mixed, 8) @ torch.cat(parts))


def test_gradients_reach_every_table(mixed, matrix):
    drawn_from = [table.requires_grad_() for table in tables()]
    mixed.draw(drawn_from).sum().backward()
    gradient = torch.cat([table.grad[:, 0] for table in drawn_from])
    torch.testing.assert_close(gradient, matrix(mixed, 8).sum(0))


def test_take(make_rows):
    taken = make_rows([(0, 1.0)], [], [(1, 2.0), (2, 3.0)]).take(torch.tensor([2, 0, 2, 1]))
    assert taken.sources.tolist() == [1, 2, 0, 1, 2]
    assert taken.offsets.tolist() == [0, 2, 3, 5, 5]
    assert taken.weights.tolist() == [2.0, 3.0, 1.0, 2.0, 3.0]
    selected = Rows.of(torch.tensor([4, 5, 6])).take(torch.tensor([2, 2, 0]))
    assert selected.selects
    assert selected.sources.tolist() == [6, 6, 4]


def test_row_of_entry(mixed):
    assert mixed.row_of_entry().tolist() == [0, 0, 0, 1, 3, 3, 4, 4]


def test_times_is_the_matrix_product(mixed, make_rows, matrix):
    outer = make_rows([(0, 2.0), (4, 1.0), (0, 1.0)], [], [(3, 0.5)], [(2, 1.0)])
    torch.testing.assert_close(matrix(outer.times(mixed), 8), matrix(outer, 5) @ matrix(mixed, 8))
    selection = Rows.of(torch.tensor([3, 0, 3]))
    torch.testing.assert_close(matrix(selection.times(mixed), 8), matrix(mixed, 8)[[3, 0, 3]])
    index = Rows.of(torch.tensor([7, 6, 5, 4, 3]))
    torch.testing.assert_close(matrix(outer.times(index), 8), matrix(outer, 5) @ matrix(index, 8))
    assert selection.times(index).selects
    assert not outer.times(index).selects


def test_stacked(mixed, make_rows, matrix):
    other = make_rows([(5, 1.0)], [])
    both = stacked([mixed, other, mixed])
    torch.testing.assert_close(matrix(both, 8), torch.cat([matrix(rows, 8) for rows in (mixed, other, mixed)]))
    index = Rows.of(torch.tensor([1, 2]))
    assert stacked([index, index]).selects
    assert stacked([index, index]).sources.tolist() == [1, 2, 1, 2]
    assert not stacked([index, mixed]).selects


def test_moved_forgets_which_table_was_meant(mixed, matrix):
    moved = mixed.divided(SIZES).moved(mixed.sources.flip(0))
    expected = torch.zeros(5, 8).index_put_((mixed.row_of_entry(), mixed.sources.flip(0)), mixed.weights, True)
    torch.testing.assert_close(moved.draw(tabled := tables()), expected @ torch.cat(tabled))


def test_entries_in_any_order_make_rows(matrix):
    """Row 1 is empty; the entries of row 2 stay in their order."""
    row, sources = torch.tensor([2, 0, 2, 3]), torch.tensor([4, 1, 0, 1])
    rows = Rows.of_entries(row, sources, torch.tensor([0.5, 2.0, 3.0, 1.0]), 4)
    assert rows.offsets.tolist() == [0, 1, 1, 3, 4]
    assert rows.sources.tolist() == [1, 4, 0, 1]
    expected = [[0, 2, 0, 0, 0], [0] * 5, [3, 0, 0, 0, 0.5], [0, 1, 0, 0, 0]]
    assert matrix(rows, 5).tolist() == expected


def test_sums_of_groups_are_in_the_order_of_their_rows():
    values = torch.tensor([[1e8, 1.0], [1.0, 2.0], [-1e8, 3.0], [4.0, 4.0]])
    group = torch.tensor([2, 2, 2, 0])
    assert sums_of_groups(values, group, 4).tolist() == [[4, 4], [0, 0], [0, 6], [0, 0]]  # 1e8 + 1 is 1e8
    weights = torch.tensor([0.5, 3.0, 0.5, 2.0])
    assert sums_of_groups(values[:, 1:], group, 3, weights).tolist() == [[8], [0], [8]]
