"""Newlines: formulas for full maps, sparse places, errors."""

import pytest
import torch

from llava.layout import insert_newlines

NEWLINE = torch.tensor([-1.0])


def full(frames, height, width):
    place = torch.cartesian_prod(torch.arange(frames), torch.arange(height), torch.arange(width)).view(-1, 3)
    return torch.arange(len(place), dtype=torch.float32)[:, None], place


@pytest.mark.parametrize(
    ("position", "count"), [("grid", 3 * 2 * 5), ("frame", 3 * (2 * 4 + 1)), ("one_token", 25), ("no_token", 24)]
)
def test_lengths(position, count):
    tokens, place = full(3, 2, 4)
    assert len(insert_newlines(tokens, place, NEWLINE, position)) == count


def test_order_in_a_full_map():
    tokens, place = full(2, 2, 2)
    rows = insert_newlines(tokens, place, NEWLINE, "grid").flatten().tolist()
    frames = insert_newlines(tokens, place, NEWLINE, "frame").flatten().tolist()
    assert rows == [0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]
    assert frames == [0, 1, 2, 3, -1, 4, 5, 6, 7, -1]


def test_rows_and_frames_without_tokens_get_no_newline():
    tokens = torch.arange(4.0)[:, None]
    place = torch.tensor([[0, 0, 3], [0, 2, 0], [0, 2, 5], [4, 2, 5]])
    rows = insert_newlines(tokens, place, NEWLINE, "grid").flatten().tolist()
    frames = insert_newlines(tokens, place, NEWLINE, "frame").flatten().tolist()
    assert rows == [0, -1, 1, 2, -1, 3, -1]
    assert frames == [0, 1, 2, -1, 3, -1]


def test_dtype_is_that_of_the_tokens_and_inputs_stay():
    tokens, place = full(1, 3, 1)
    before = tokens.clone()
    laid_out = insert_newlines(tokens.bfloat16(), place, NEWLINE, "grid")
    assert laid_out.dtype == torch.bfloat16
    assert laid_out.flatten().tolist() == [0, -1, 1, -1, 2, -1]
    assert torch.equal(tokens, before)


def test_errors():
    tokens, place = full(1, 1, 1)
    with pytest.raises(ValueError, match="mm_newline_position must be one of grid, frame"):
        insert_newlines(tokens, place, NEWLINE, "row")
    with pytest.raises(ValueError, match="needs a newline token"):
        insert_newlines(tokens, place, None, "grid")
    assert insert_newlines(tokens, place, None, "no_token") is tokens


@pytest.mark.parametrize("position", ["grid", "frame", "one_token", "no_token"])
def test_a_full_lattice_is_laid_out_without_looking_at_values(position):
    """On the meta device, where there are none: a GPU is not waited for."""
    tokens, place = full(3, 2, 4)
    expected = insert_newlines(tokens, place, NEWLINE, position)
    assert torch.equal(insert_newlines(tokens, place, NEWLINE, position, (3, 2, 4)), expected)
    laid_out = insert_newlines(tokens.to("meta"), place.to("meta"), NEWLINE.to("meta"), position, (3, 2, 4))
    assert laid_out.shape == expected.shape


def test_the_lattice_says_nothing_where_tokens_are_missing():
    tokens, place = full(3, 2, 4)
    few = insert_newlines(tokens[:5], place[:5], NEWLINE, "grid", (3, 2, 4))
    assert few.flatten().tolist() == [0, 1, 2, 3, -1, 4, -1]
