"""Tiles of images, against the original code."""

import json

import pytest

from llava.nvila.tiles import closest_grid, s2_blocks

SCALES = (448, 896, 1344)


def sizes(tables):
    return [(tuple(map(int, name.split("x"))), rows) for name, rows in tables.items()]


@pytest.fixture(scope="module")
def tables(golden):
    return json.loads((golden / "nvila" / "text_tables.json").read_text())


def test_grids_of_dynamic_tiles(tables):
    for size, by_most in sizes(tables["dynamic_tiles"]):
        for most, expected in by_most.items():
            rows, columns = closest_grid(size, 448, 1, int(most))
            assert [columns, rows] == expected["columns_rows"], (size, most)
            assert rows * columns + (rows * columns > 1) == expected["tiles"]


def test_blocks_of_dynamic_s2(tables):
    for size, expected in sizes(tables["dynamic_s2_blocks"]):
        rows, columns = s2_blocks(size, SCALES, 12)
        assert [rows, columns] == expected["block_size_h_w"], size
        assert 1 + 4 + rows * columns == expected["tiles"]


def test_ties_go_to_the_later_grid_if_the_image_fills_half_of_it():
    """All of 1x1, 2x2, 3x3 are as close to a square; 2x2 of 10 pixels are 400, 3x3 are 900."""
    assert closest_grid((15, 15), 10, 1, 9) == (2, 2)
    assert closest_grid((14, 14), 10, 1, 9) == (1, 1)
    assert closest_grid((22, 22), 10, 1, 9) == (3, 3)
