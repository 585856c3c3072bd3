"""Video tokens: where they stand, and what a plan does to all that belongs to them."""

import math

import pytest
import torch

from stgridpool import Average, Max, Plan, PruneVid, STGridPool, VideoTokens, compress_tokens
from stgridpool.video_tokens import unravel


def counting(*shape, **more):
    return VideoTokens(torch.arange(math.prod(shape), dtype=torch.float32)[:, None], shape, **more)


def test_maps_are_wrapped_without_a_copy():
    maps = torch.randn(3, 4, 5, 6)
    tokens = VideoTokens.of(maps)
    assert (len(tokens), tokens.shape, tokens.cell) == (60, (3, 4, 5), None)
    assert tokens.features.data_ptr() == tokens.maps().data_ptr() == maps.data_ptr()
    assert torch.equal(tokens.maps(), maps)
    transposed = maps.transpose(0, 2)
    assert torch.equal(VideoTokens.of(transposed).maps(), transposed)


def test_places():
    tokens = counting(2, 2, 3)
    every = [[t, y, x] for t in range(2) for y in range(2) for x in range(3)]
    assert tokens.places().tolist() == unravel(torch.arange(12), (2, 2, 3)).tolist() == every
    assert tokens.cells().tolist() == list(range(12))
    assert tokens.frames().tolist() == [0] * 6 + [1] * 6
    some = VideoTokens(torch.randn(3, 4), (2, 2, 3), torch.tensor([11, 0, 7]))
    assert some.places().tolist() == [[1, 1, 2], [0, 0, 0], [1, 0, 1]]
    assert some.frames().tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VideoTokens.of(torch.zeros(2, 3, 4)), r"\(frames, rows, columns, width\).*got \(2, 3, 4\)"),
        (lambda: VideoTokens.of(torch.zeros(2, 0, 3, 4)), r"none of them 0, got \(2, 0, 3, 4\)"),
        (lambda: VideoTokens.of(torch.zeros(2, 2, 3, 4).long()), r"floating dtype, got torch\.int64"),
        (lambda: VideoTokens(torch.zeros(5, 4), (1, 2, 3)), r"one token per cell, got 5 for 6 of \(1, 2, 3\)"),
        (lambda: VideoTokens(torch.zeros(5, 4), (1, 2, 3), torch.arange(4)), "one token per cell, got 5 for 4"),
        (lambda: counting(1, 2, 3, levels=(torch.zeros(5, 2),)), "one token per cell, got 5 for 6"),
        (lambda: VideoTokens(torch.zeros(0, 4), (1, 2, 3), torch.arange(0)), r"none of them 0, got \(0, 4\)"),
        (lambda: VideoTokens(torch.zeros(6), (1, 2, 3)), r"must be \(tokens, width\)"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_where_there_is_no_lattice_the_methods_that_need_none_are_named():
    few = counting(2, 2, 3).through(Plan.keep(torch.tensor([1, 5, 9]), 12))
    with pytest.raises(ValueError, match=r"3 tokens do not fill a lattice of \(2, 2, 3\); methods .* on them: none"):
        few.maps()
    with pytest.raises(ValueError, match="methods that can act on them: none"):
        compress_tokens(Average(), few, {})


def test_a_lattice_carries_levels_and_times_along():
    levels = (torch.randn(32, 5), torch.randn(32, 1))
    tokens = VideoTokens(torch.randn(32, 3), (2, 4, 4), levels=levels, times=torch.tensor([0.5, 2.0]))
    pooled, plan = compress_tokens(Average(), tokens, {})
    assert (pooled.shape, pooled.cell, pooled.times.tolist()) == ((2, 2, 2), None, [0.5, 2.0])
    for before, after in zip((tokens.features, *levels), (pooled.features, *pooled.levels), strict=True):
        windows = before.view(2, 2, 2, 2, 2, -1).mean(dim=(2, 4)).flatten(0, 2)
        torch.testing.assert_close(after, windows)
    assert len(plan) == 8


def test_levels_get_mosaics_of_their_own():
    tokens = VideoTokens(torch.randn(64, 3), (4, 4, 4), levels=(torch.randn(64, 2),))
    method = STGridPool(strides=(1,), grid_size=2)
    left, plan = compress_tokens(method, tokens, {})
    assert plan.made
    torch.testing.assert_close(left.levels[0], plan.flatten().apply(tokens.levels[0]))


def test_levels_of_a_method_that_is_not_linear():
    tokens = VideoTokens(torch.randn(16, 3), (1, 4, 4), levels=(torch.randn(16, 2),))
    left, _ = compress_tokens(Max(), tokens, {})
    for before, after in zip((tokens.features, *tokens.levels), (left.features, *left.levels), strict=True):
        assert torch.equal(after, before.view(2, 2, 2, 2, -1).amax(dim=(1, 3)).flatten(0, 1))


def test_frames_that_are_left_keep_their_times():
    tokens = counting(4, 1, 2, times=torch.tensor([0.0, 1.0, 2.0, 3.0]))
    halved = tokens.through(Plan.keep(torch.tensor([2, 3, 6, 7]), 8, (2, 1, 2)))
    assert (halved.shape, halved.times.tolist()) == ((2, 1, 2), [1.0, 3.0])
    ragged = VideoTokens(torch.zeros(4, 1), (4, 1, 2), torch.tensor([2, 3, 6, 7]), times=tokens.times)
    first = ragged.through(Plan.keep(torch.tensor([2, 3]), 4, (1, 1, 2)))
    assert first.times.tolist() == [3.0]
    assert tokens.through(Plan.keep(torch.tensor([7, 0]), 8)).times.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_ragged_tokens_stand_on_the_cells_of_their_anchors():
    tokens = counting(2, 2, 3)
    once = tokens.through(Plan.keep(torch.tensor([1, 4, 5, 10]), 12))
    assert (once.cell.tolist(), once.shape) == ([1, 4, 5, 10], (2, 2, 3))
    merged = once.through(Plan.merge(torch.tensor([0, 1, 0, 1]), torch.tensor([2, 3])))
    assert (merged.cell.tolist(), merged.features.flatten().tolist()) == ([5, 10], [3.0, 7.0])
    again = merged.through(Plan.keep(torch.tensor([1]), 2))
    assert (again.cell.tolist(), again.shape) == ([10], (2, 2, 3))


def test_several_tokens_may_stand_on_one_place():
    tokens = counting(1, 2, 2)
    thumbnail = Plan.merge(torch.zeros(4, dtype=torch.int64), torch.tensor([0]))
    both = tokens.through(Plan.concat([thumbnail, Plan.keep(torch.tensor([3, 0]), 4)]))
    assert both.cell.tolist() == [0, 3, 0]
    assert both.places().tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert both.features.flatten().tolist() == [1.5, 3.0, 0.0]


def test_values_stand_in_for_a_plan_that_does_not_reproduce_them():
    tokens = counting(1, 2, 2, levels=(torch.ones(4, 2),))
    doubled = tokens.through(Plan.keep(torch.tensor([0, 3]), 4), lambda rows: 2 * rows[[0, 3]])
    assert doubled.features.flatten().tolist() == [0.0, 6.0]
    assert doubled.levels[0].tolist() == [[2.0, 2.0]] * 2


def test_ties_do_not_depend_on_the_layout_in_memory():
    """All tokens are equal, and so is the decision where channels lie apart in memory."""
    maps = torch.randn(64, generator=torch.Generator().manual_seed(0)).expand(12, 14, 14, 64)
    apart = maps.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    assert VideoTokens.of(apart).features.is_contiguous()
    expected, found = (PruneVid(inner_retention=1)(one).plan for one in (maps.contiguous(), apart))
    assert torch.equal(found.anchor, expected.anchor)
    assert torch.equal(found.rows.sources, expected.rows.sources)
