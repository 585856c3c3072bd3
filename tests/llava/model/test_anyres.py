"""Tokens of tiled images: the golden table of real sizes, hand-made maps, errors."""

import json
import math

import pytest
import torch

from llava.model.anyres import check_merge_type, max_tiles_of, merge_image, without_padding

NEWLINE = torch.full((1,), -1.0)


def test_token_counts_of_real_images(llava_golden):
    table = json.loads((llava_golden / "text_tables.json").read_text())["anyres_table_real_384"]
    for row in table:
        width, height = row["grid_wh"]
        size = tuple(row["image_size_wh"])
        unpadded = without_padding(torch.zeros(1, 27 * height, 27 * width), size)
        assert list(unpadded.shape[1:]) == row["unpadded_hw"]
        features = torch.zeros(1 + width * height, 729, 1)
        tokens = merge_image(features, 27, "spatial_unpad", NEWLINE, grid=(width, height), image_size=size, max_tiles=9)
        assert len(tokens) == row["anyres_max_9_tokens"]


def numbered(tiles, side):
    return torch.arange(tiles * side * side, dtype=torch.float32).view(tiles, side * side, 1)


def test_tiles_are_joined_row_by_row():
    tokens = merge_image(numbered(3, 2), 2, "spatial", grid=(2, 1))
    assert tokens.flatten().tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]


def test_newlines_end_the_rows_of_the_joined_map_only():
    tokens = merge_image(numbered(3, 2), 2, "spatial_unpad", NEWLINE, grid=(2, 1), image_size=(400, 200))
    assert tokens.flatten().tolist() == [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]
    without_base = merge_image(numbered(3, 2), 2, "spatial_unpad_nobase", NEWLINE, grid=(2, 1), image_size=(400, 200))
    assert torch.equal(without_base, tokens[4:])


def test_a_lone_map_ends_with_a_newline():
    assert merge_image(numbered(1, 2), 2, "spatial_unpad", NEWLINE).flatten().tolist() == [0, 1, 2, 3, -1]
    assert merge_image(numbered(1, 2), 2, "spatial").flatten().tolist() == [0, 1, 2, 3]
    assert merge_image(numbered(2, 1), 1, "flat").flatten().tolist() == [0, 1]


def test_shrinking_starts_above_a_tenth():
    features = torch.zeros(5, 16, 1)
    kept = merge_image(features, 4, "spatial_unpad", NEWLINE, grid=(2, 2), image_size=(8, 8), max_tiles=4)
    shrunk = merge_image(features, 4, "spatial_unpad", NEWLINE, grid=(2, 2), image_size=(8, 8), max_tiles=2)
    assert len(kept) == 16 + 8 * 9
    side = int(8 // math.sqrt(2))
    assert len(shrunk) == 16 + side * (side + 1)


def test_errors():
    with pytest.raises(ValueError, match="must be 'flat' or begin with 'spatial'"):
        check_merge_type("square")
    with pytest.raises(ValueError, match=r"needs 1 \+ 4 tiles, got 3"):
        merge_image(numbered(3, 2), 2, "spatial", grid=(2, 2))
    with pytest.raises(ValueError, match="needs image_sizes"):
        merge_image(numbered(5, 2), 2, "spatial_unpad", NEWLINE)
    with pytest.raises(ValueError, match="needs a newline token"):
        merge_image(numbered(1, 2), 2, "spatial_unpad")


def test_the_number_in_anyres_max():
    assert max_tiles_of("anyres_max_9") == 9
    assert max_tiles_of("anyres") is None
