"""Tiles: pixels whose colours follow from the plan."""

import numpy as np
import pytest
import torch

from stgridpool import Plan, build_compressor
from stgridpool.show.colours import PANEL, group_colours, heat_colours, scaled
from stgridpool.show.drawing import Drawing
from stgridpool.show.tiles import heat_tile, patches_tile, tokens_tile
from stgridpool.show.trace import Trace

SIZE = (40, 40)


def draw(plan, shape):
    return Drawing.of(Trace.of("method", plan, shape).stages[-1], shape)


@pytest.fixture
def frames():
    """Four frames of one colour each, of 2x2 patches."""
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    return np.stack([np.full((*SIZE, 3), colour, np.uint8) for colour in colours])


def test_lost_patches_are_dark_and_grey_and_kept_ones_as_they_are(frames):
    tile = patches_tile(frames[0], 0, draw(Plan.keep(torch.tensor([3]), 16), (4, 2, 2)), (4, 2, 2), SIZE)
    assert tile[30, 30].tolist() == [200, 0, 0]
    grey = round(200 / 3 * 0.2)
    assert tile[10, 10].tolist() == [grey] * 3


def test_the_less_of_a_patch_reaches_tokens_the_darker_it_is(frames):
    """Patch 0 is kept; the two below each other on the right make a quarter and three quarters of a token."""
    plan = Plan.merge(torch.tensor([0, 1, -1, 1]), torch.tensor([0, 1]), torch.tensor([1, 0.25, 0, 0.75]))
    tile = patches_tile(frames[0], 0, draw(plan, (1, 2, 2)), (1, 2, 2), SIZE)
    assert tile[10, 10, 0] == 200
    assert tile[10, 30, 0] == 200 * (0.5 + 0.5 * 0.25**0.5)
    assert tile[30, 30, 0] == round(200 * (0.5 + 0.5 * 0.75**0.5))


def test_a_group_has_its_colour_in_every_frame(frames):
    """The first patches of frames 0 and 1 become one token."""
    group = torch.tensor([0, -1, -1, -1] * 2)
    drawing = draw(Plan.merge(group, torch.tensor([0])), (2, 2, 2))
    for number in (0, 1):
        tile = patches_tile(frames[number], number, drawing, (2, 2, 2), SIZE)
        expected = 0.4 * frames[number, 0, 0] + 0.6 * np.array(group_colours()[0])
        np.testing.assert_allclose(tile[10, 10], expected, atol=1)


def test_a_mosaic_is_drawn_as_a_mosaic(frames):
    """Four frames become the quarters of a mosaic in place of the last one."""
    drawing = draw(build_compressor("ptg", strides=[1])(torch.randn(4, 2, 2, 8)).plan, (4, 2, 2))
    tile = tokens_tile(frames, 3, drawing, SIZE)
    assert [tile[y, x].tolist() for y in (10, 30) for x in (10, 30)] == [frame[0, 0].tolist() for frame in frames]
    assert tile[10, 19].min() > 150  # the line between two frames


def test_what_no_token_stands_for_is_empty(frames):
    drawing = draw(Plan.keep(torch.tensor([0]), 16), (4, 2, 2))
    assert (tokens_tile(frames, 1, drawing, SIZE) == PANEL).all()
    assert tokens_tile(frames, 0, drawing, SIZE)[10, 10].tolist() == [200, 0, 0]
    assert tokens_tile(frames, 0, drawing, SIZE)[30, 30].tolist() == list(PANEL)


def test_a_token_of_several_frames_shows_their_mean(frames):
    plan = Plan.merge(torch.tensor([0, -1, -1, -1] * 2), torch.tensor([0]))
    tile = tokens_tile(frames[:2], 0, draw(plan, (2, 2, 2)), SIZE)
    assert tile[10, 10].tolist() == [100, 100, 0]


def test_a_blank_token_comes_from_no_frame(frames):
    """The second picture of two frames has only one: its lower half is blank."""
    drawing = draw(build_compressor("image_grid", frames=2)(torch.randn(3, 2, 2, 8)).plan, (3, 2, 2))
    tile = tokens_tile(frames[:3], 2, drawing, SIZE)
    assert [tile[y, x].tolist() for y in (10, 30) for x in (10, 30)] == [[0, 0, 200]] * 2 + [[0, 0, 0]] * 2


def test_layers_stand_side_by_side(frames):
    drawing = draw(build_compressor("ptg", strides=[1], write="append")(torch.randn(4, 2, 2, 8)).plan, (4, 2, 2))
    tile = tokens_tile(frames, 3, drawing, SIZE)
    assert tile[5, 5].tolist() == [200, 200, 0]  # the frame itself
    assert tile[5, 25].tolist() == [200, 0, 0]  # the first quarter of the mosaic
    assert tile[30, 30].tolist() == list(PANEL)


def test_heat_maps_go_from_dark_to_bright_and_leave_out_nan(frames):
    values = np.array([0, 0.5, 1, np.nan], np.float32)
    colours = heat_colours(values).astype(int).sum(axis=1)
    assert colours[0] < colours[1] < colours[2]
    assert heat_colours(values)[3].tolist() == list(PANEL)
    tile = heat_tile(frames[0], 0, values, (1, 2, 2), SIZE)
    np.testing.assert_allclose(tile[30, 10], 0.8 * heat_colours(values)[2] + 0.2 * 200 / 3, atol=1)


def test_numbers_are_scaled_between_their_percentiles():
    values = np.array([np.nan, *np.arange(101)])
    np.testing.assert_allclose(scaled(values)[1:], np.clip((np.arange(101) - 1) / 98, 0, 1))
    assert scaled(np.full(3, 7.0)).tolist() == [0.5] * 3
    assert np.isnan(scaled(np.full(2, np.nan))).all()


def test_colours_of_groups_differ_from_their_neighbours():
    colours = np.array(group_colours(), int)
    assert (np.abs(np.diff(colours, axis=0)).sum(axis=1) > 100).all()
    assert len(np.unique(colours, axis=0)) == len(colours)
