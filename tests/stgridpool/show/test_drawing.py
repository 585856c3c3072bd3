"""Drawings: where tokens stand in pictures, and what they show."""

import numpy as np
import pytest
import torch

from stgridpool import STTM, Plan, SlowFast, VideoTokens, build_compressor, compress_tokens
from stgridpool.show.drawing import Drawing, cut
from stgridpool.show.trace import Stage, Trace


def draw(plan, shape):
    return Drawing.of(Trace.of("method", plan, shape).stages[-1], shape)


def test_kept_tokens_stand_in_their_own_place_and_show_it():
    """Of two frames of 2x2 patches, the last of the first and the first of the second."""
    drawing = draw(Plan.keep(torch.tensor([3, 4]), 8), (2, 2, 2))
    assert drawing.frame.tolist() == [0, 1]
    assert drawing.box.tolist() == [[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]]
    assert drawing.cuttings.box.tolist() == drawing.box.tolist()
    assert drawing.cuttings.frame.tolist() == [0, 1]
    assert drawing.reach.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert drawing.owner.tolist() == [-1, -1, -1, 0, 1, -1, -1, -1]
    assert drawing.colour.tolist() == [-1, -1]


def test_pooled_tokens_fill_their_frame_and_show_their_windows():
    plan = build_compressor("average")(torch.randn(1, 4, 4, 8)).plan
    drawing = draw(plan, (1, 4, 4))
    windows = [[x, y, x + 0.5, y + 0.5] for y in (0, 0.5) for x in (0, 0.5)]
    assert drawing.box.tolist() == windows
    np.testing.assert_allclose(drawing.cuttings.box, windows, atol=1e-6)
    assert drawing.reach.tolist() == [1] * 16
    assert drawing.region.reshape(4, 4)[0].tolist() == [0, 0, 1, 1]


def test_a_mosaic_shows_whole_frames_in_its_quarters():
    """Four frames of 4x4 tokens become one of 2x2 tiles, in place of the last: each token shows a window of 2x2."""
    plan = build_compressor("ptg", strides=[1])(torch.randn(4, 4, 4, 8)).plan
    drawing = draw(plan, (4, 4, 4))
    mosaic = np.flatnonzero(drawing.frame == 3)
    starts = drawing.cuttings.offsets[mosaic]
    assert drawing.cuttings.frame[starts].reshape(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    np.testing.assert_allclose(drawing.cuttings.box[starts][0], [0, 0, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(drawing.cuttings.box[starts][3], [0.5, 0, 1, 0.5], atol=1e-6)


def test_appended_mosaics_are_layers_of_their_own():
    plan = build_compressor("ptg", strides=[1], write="append")(torch.randn(4, 4, 4, 8)).plan
    drawing = draw(plan, (4, 4, 4))
    assert np.bincount(drawing.layer[drawing.frame == 3]).tolist() == [16, 16]


def test_pathways_over_the_same_frame_are_layers():
    drawing = draw(SlowFast()(torch.randn(4, 4, 4, 8)).plan, (4, 4, 4))
    assert set(drawing.layer.tolist()) == {0, 1}
    for frame in range(4):
        for layer in (0, 1):
            box = drawing.box[(drawing.frame == frame) & (drawing.layer == layer)]
            assert (box[:, 2:] - box[:, :2]).prod(1).sum() <= 1 + 1e-6  # nothing is covered twice


def test_groups_over_frames_have_a_colour_and_boxes_within_one_have_none():
    """Two frames of 2x2: the left column of both is one token, the right one of the first frame another."""
    group = torch.tensor([0, 1, 0, 1, 0, 2, 0, -1])
    drawing = draw(Plan.merge(group, torch.tensor([0, 1, 5])), (2, 2, 2))
    assert drawing.colour.tolist() == [0, -1, -1]
    assert drawing.merged.tolist() == [4, 2, 1]
    assert drawing.box.tolist() == [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.5, 0, 1, 0.5]]
    shown = slice(*drawing.cuttings.offsets[:2].tolist())
    assert drawing.cuttings.frame[shown].tolist() == [0, 1]
    assert drawing.cuttings.share[shown].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(drawing.cuttings.box[shown], [[0, 0, 0.5, 1]] * 2, atol=1e-6)


def test_scattered_patches_are_shown_one_by_one():
    """The corners of 3x3 patches stand at the first of them."""
    drawing = draw(Plan.merge(torch.tensor([0, -1, 0, -1, -1, -1, 0, -1, 0]), torch.tensor([0])), (1, 3, 3))
    np.testing.assert_allclose(drawing.box, [[0, 0, 1 / 3, 1 / 3]], atol=1e-6)
    assert drawing.colour.tolist() == [0]
    assert len(drawing.cuttings.frame) == 4
    np.testing.assert_allclose(drawing.cuttings.box[3], [2 / 3, 2 / 3, 1, 1], atol=1e-6)


@pytest.mark.parametrize(("name", "edges"), [("bilinear", [0, 2, 3.5, 5, 7]), ("adaptive_pool", [0, 1.6, 3.5, 5.4, 7])])
def test_cuttings_of_windows_that_share_patches_lie_side_by_side(name, edges):
    """Seven patches become four. Bilinear: 1, 2, 3 + 4, 4 + 5, 6, 7; adaptive: windows 0-2, 1-4, 3-6, 5-7,
    the weights of which are 1 / 2 and 1 / 3: of patch 1 they get shares of 0.6 and 0.4.
    """
    options = {"adaptive_pool": {"size": 4}}.get(name, {})
    plan = build_compressor(name, **options)(torch.randn(1, 7, 7, 8)).plan
    box = draw(plan, (1, 7, 7)).cuttings.box * 7
    np.testing.assert_allclose(box[:4, 0], edges[:-1], atol=1e-5)
    np.testing.assert_allclose(box[::4, 3], edges[1:], atol=1e-5)


def test_only_the_largest_cuttings_of_a_token_are_drawn():
    count = 100
    weights = np.arange(1, count + 1, dtype=np.float32)
    cuttings = cut(np.zeros(count, np.int64), np.arange(count), weights, np.zeros(1, np.int64), (count, 1, 1))
    assert cuttings.frame.tolist() == list(range(99, 67, -1))
    np.testing.assert_allclose(cuttings.share.sum(), 1, rtol=1e-5)


def test_the_nodes_of_a_quadtree_are_regions():
    """One frame of four equal quarters: each quarter is a node, even if all of them are one token."""
    tokens = VideoTokens.of(torch.ones(1, 4, 4, 8))
    method = STTM(layer=0, root_level=0)
    _, plan = compress_tokens(method, tokens, {})
    heads = method.forest(tokens.maps()).heads
    stage = Stage.start((1, 4, 4)).then("merged", plan, heads)
    region = Drawing.of(stage, (1, 4, 4)).region.reshape(4, 4)
    assert (region[:2, :2] == region[0, 0]).all()
    assert region[0, 0] != region[0, 2]
