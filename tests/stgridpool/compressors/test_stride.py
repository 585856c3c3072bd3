"""Tokens at even distances, by hand."""

import pytest
import torch

from stgridpool import Stride, VideoTokens, build_compressor


def places(method, *shape):
    tokens = torch.zeros(*shape, 1)
    plan = method(tokens).plan
    return VideoTokens.of(tokens).places()[plan.kept()]


@pytest.mark.parametrize(
    ("frames", "temporal", "kept"),
    [
        (9, 2, [0, 2, 4, 6, 8]),
        (8, 2, [0, 2, 5, 7]),  # 0, 2.33, 4.67, 7
        (8, 3, [0, 4, 7]),  # 3.5 is rounded up
        (10, 4, [0, 5, 9]),  # 4.5 as well
        (5, 1, [0, 1, 2, 3, 4]),
        (5, 7, [0]),
        (1, 2, [0]),
    ],
)
def test_frames_lie_evenly_between_the_first_and_the_last(frames, temporal, kept):
    method = Stride(temporal=temporal)
    assert places(method, frames, 1, 1)[:, 0].tolist() == kept
    assert method.planned_shape((frames, 3, 2)) == (len(kept), 3, 2)


@pytest.mark.parametrize(
    ("side", "spatial", "kept"),
    [
        (27, 2, list(range(0, 27, 2))),
        (27, 3, [1, 4, 7, 10, 13, 16, 19, 22, 25]),
        (14, 2, [0, 2, 4, 6, 8, 10, 12]),  # the one that lacks cannot be halved
        (14, 4, [0, 4, 8, 12]),
        (12, 5, [0, 5, 10]),
        (4, 9, [1]),
        (1, 2, [0]),
    ],
)
def test_rows_and_columns_lie_in_the_middle(side, spatial, kept):
    assert places(Stride(spatial=(spatial, 1)), 1, side, 1)[:, 1].tolist() == kept
    assert places(Stride(spatial=(1, spatial)), 1, 1, side)[:, 2].tolist() == kept


def test_the_output_fills_a_lattice():
    tokens = VideoTokens(torch.arange(120.0)[:, None], (5, 4, 6), times=torch.tensor([0.0, 1, 2, 3, 4]))
    method = Stride(temporal=2, spatial=[2, 3])
    plan = method.plan(tokens, {})
    left = tokens.through(plan)
    assert plan.shape == left.shape == method.planned_shape((5, 4, 6)) == (3, 2, 2)
    assert method.planned_count((5, 4, 6)) == len(left) == 12
    # Frames 0, 2 and 4; rows 0 and 2 of 4; columns 1 and 4 of 6.
    expected = [24 * t + 6 * y + x for t in (0, 2, 4) for y in (0, 2) for x in (1, 4)]
    assert left.features.flatten().tolist() == expected
    assert left.times.tolist() == [0, 2, 4]
    both = build_compressor("stride+sttm", stride={"spatial": 2})
    assert both(torch.randn(4, 8, 8, 3)).plan.num_sources == 256  # what needs a lattice can follow


@pytest.mark.parametrize(
    ("options", "shape", "kept"),
    [
        ({"tokens": 3}, (1, 1, 9), [1, 4, 7]),
        ({"tokens": 1}, (1, 3, 3), [4]),
        ({"tokens": 4}, (1, 1, 10), [1, 3, 6, 8]),  # 1.25, 3.75, 6.25, 8.75
        ({"tokens_per_frame": 2}, (3, 1, 5), [1, 3, 6, 8, 11, 13]),
        ({"tokens": 2}, (4, 1, 2), [2, 6]),  # fewer than frames: still spread over the video
        ({}, (2, 2, 4), [2, 6, 10, 14]),
        ({"retention": 0.7}, (1, 1, 10), [0, 2, 3, 5, 6, 7, 9]),  # 0.71, 2.14, 3.57, 5, 6.43, 7.86, 9.29
        ({"retention": 1.0}, (1, 1, 4), [0, 1, 2, 3]),
    ],
)
def test_a_budget_keeps_the_middle_of_equal_blocks(options, shape, kept):
    method = Stride(**options)
    plan = method(torch.zeros(*shape, 1)).plan
    assert plan.kept().tolist() == kept
    assert plan.shape is None
    assert method.planned_shape(shape) is None
    assert method.planned_count(shape) == len(kept)


def test_a_budget_is_met_on_what_is_there_and_strides_are_refused():
    tokens = VideoTokens(torch.zeros(9, 1), (4, 2, 2), torch.arange(3, 12))
    assert Stride(tokens=3).plan(tokens, {}).kept().tolist() == [1, 4, 7]
    with pytest.raises(ValueError, match=r"strides need a whole lattice.* 9 tokens .*\(4, 2, 2\).*retention=0.5"):
        Stride(temporal=2).plan(tokens, {})
    chain = build_compressor("random+stride", stride={"spatial": 2})
    with pytest.raises(ValueError, match=r"strides need a whole lattice.* 16 tokens .*\(4, 4, 4\)"):
        chain.planned_count((4, 4, 4))  # before anything is encoded


def test_bad_options():
    with pytest.raises(ValueError, match=r"given in one way, got \{'tokens': 5, 'temporal'"):
        Stride(temporal=2, tokens=5)
    with pytest.raises(ValueError, match="temporal must be a whole number from 1 to 100000, got 0"):
        Stride(temporal=0)
    with pytest.raises(ValueError, match=r"spatial must be a whole number from 1 to 256, or .*, got 0"):
        Stride(spatial=0)
    with pytest.raises(ValueError, match=r"spatial must be .*, got \[1, 2, 3\]"):
        Stride(spatial=[1, 2, 3])
    with pytest.raises(ValueError, match="a budget is given in one way"):
        Stride(tokens=2, retention=0.5)
    assert Stride() == Stride(retention=0.25)
    assert [step.place for step in Stride(spatial=2).steps()] == ["tokens"]
