"""Newlines: formulas for full lattices, sparse places, errors."""

import pytest
import torch

from stgridpool import Plan, VideoTokens
from stgridpool.newlines import NEWLINE_POSITIONS, count_newlines, insert_newlines

NEWLINE = torch.tensor([-1.0])


def full(frames, height, width):
    return VideoTokens.of(torch.arange(frames * height * width, dtype=torch.float32).view(frames, height, width, 1))


def laid_out(tokens, position):
    return insert_newlines(tokens, NEWLINE, position).flatten().tolist()


@pytest.mark.parametrize(
    ("position", "count"), [("grid", 3 * 2 * 5), ("frame", 3 * (2 * 4 + 1)), ("one_token", 25), ("no_token", 24)]
)
def test_lengths(position, count):
    assert len(insert_newlines(full(3, 2, 4), NEWLINE, position)) == count
    assert 24 + count_newlines((3, 2, 4), position) == count


def test_order_on_a_full_lattice():
    tokens = full(2, 2, 2)
    assert laid_out(tokens, "grid") == [0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]
    assert laid_out(tokens, "frame") == [0, 1, 2, 3, -1, 4, 5, 6, 7, -1]
    assert laid_out(tokens, "one_token") == [0, 1, 2, 3, 4, 5, 6, 7, -1]
    assert laid_out(tokens, "no_token") == [0, 1, 2, 3, 4, 5, 6, 7]


def test_rows_and_frames_without_tokens_get_no_newline():
    place = torch.tensor([[0, 0, 3], [0, 2, 0], [0, 2, 5], [4, 2, 5]])
    cell = place @ torch.tensor([3 * 6, 6, 1])
    tokens = VideoTokens(torch.arange(4.0)[:, None], (5, 3, 6), cell)
    assert laid_out(tokens, "grid") == [0, -1, 1, 2, -1, 3, -1]
    assert laid_out(tokens, "frame") == [0, 1, 2, -1, 3, -1]


def test_dtype_is_that_of_the_tokens_and_inputs_stay():
    maps = torch.arange(3.0).view(1, 3, 1, 1)
    before = maps.clone()
    out = insert_newlines(VideoTokens.of(maps.bfloat16()), NEWLINE, "grid")
    assert out.dtype == torch.bfloat16
    assert out.flatten().tolist() == [0, -1, 1, -1, 2, -1]
    insert_newlines(VideoTokens.of(maps), NEWLINE, "grid")
    assert torch.equal(maps, before)


def test_errors():
    tokens = full(1, 1, 1)
    with pytest.raises(ValueError, match="mm_newline_position must be one of grid, frame"):
        insert_newlines(tokens, NEWLINE, "row")
    with pytest.raises(ValueError, match="needs a newline token"):
        insert_newlines(tokens, None, "grid")
    assert insert_newlines(tokens, None, "no_token") is tokens.features


@pytest.mark.parametrize("position", NEWLINE_POSITIONS)
def test_a_full_lattice_is_laid_out_without_looking_at_values(position):
    """On the meta device, where there are none: a GPU is not waited for."""
    tokens = full(3, 2, 4)
    expected = insert_newlines(tokens, NEWLINE, position)
    every = VideoTokens(tokens.features, tokens.shape, torch.arange(24))  # full, but nobody says so
    assert torch.equal(insert_newlines(every, NEWLINE, position), expected)
    on_meta = insert_newlines(VideoTokens(tokens.features.to("meta"), (3, 2, 4)), NEWLINE.to("meta"), position)
    assert on_meta.shape == expected.shape


def test_the_lattice_says_nothing_where_tokens_are_missing():
    tokens = full(3, 2, 4)
    few = tokens.through(Plan.keep(torch.arange(5), 24))
    assert laid_out(few, "grid") == [0, 1, 2, 3, -1, 4, -1]
