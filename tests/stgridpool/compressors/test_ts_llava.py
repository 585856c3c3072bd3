"""TS-LLaVA: thumbnail and samples by hand."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import TSLLaVA


def test_by_hand():
    """8 frames of 4 x 4; the thumbnail shows frames 0, 2, 4 and 6, each resized to 2 x 2."""
    maps = torch.randn(8, 4, 4, 3)
    out, plan = TSLLaVA(thumbnail_frames=4, tokens=20)(maps)
    tiles = F.interpolate(maps[::2].permute(0, 3, 1, 2), size=(2, 2), mode="area").permute(0, 2, 3, 1)
    upper, lower = torch.cat([tiles[0], tiles[1]], 1), torch.cat([tiles[2], tiles[3]], 1)
    torch.testing.assert_close(out[:16], torch.cat([upper, lower]).flatten(0, 1))
    samples = [16, 48, 80, 112]  # the middles of four blocks of 32
    assert torch.equal(out[16:], maps.flatten(0, 2)[samples])
    assert plan.anchor.tolist() == [*range(16), *samples]
    assert plan.shape is None


def test_six_frames_are_three_rows_of_two():
    maps = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 6, 4, 1)
    out, _ = TSLLaVA(tokens=30)(maps)
    expected = torch.tensor([[0.0, 2], [4, 6], [8, 10]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(out[:24].view(6, 4), expected)
    assert out[24:].flatten().tolist() == [1, 3, 5, 7, 9, 11]


def test_few_frames_and_small_budgets():
    maps = torch.arange(12.0).view(2, 2, 3, 1)
    out, _ = TSLLaVA(tokens=8)(maps)  # two frames, one above the other: rows become one, of 0.5 and 1.5 rows
    assert out.flatten().tolist() == [1.5, 2.5, 3.5, 7.5, 8.5, 9.5, 3, 9]
    assert TSLLaVA(tokens=6)(maps).plan.kept().tolist() == [1, 3, 5, 7, 9, 11]  # no more than a frame: samples only
    assert TSLLaVA(tokens=1)(maps).plan.kept().tolist() == [6]


def test_budgets_are_met_exactly():
    maps = torch.randn(7, 3, 5, 2)
    for count in range(1, 106):
        method = TSLLaVA(tokens=count)
        assert len(method(maps).plan) == method.planned_count((7, 3, 5)) == count
    assert len(TSLLaVA()(maps).plan) == 26
    assert len(TSLLaVA(tokens_per_frame=4)(maps).plan) == 28


def test_bad_options():
    with pytest.raises(ValueError, match="thumbnail_frames must be a whole number from 1 to 256, got 0"):
        TSLLaVA(thumbnail_frames=0)
