"""Frames from a list."""

import pytest
import torch

from stgridpool import OracleFrames, Stride
from stgridpool.chain import Chain
from stgridpool.listed_frames import ListedFrames


def test_listed_frames_are_kept_whole():
    maps = torch.randn(5, 2, 3, 4)
    method = OracleFrames(file="mine.json")
    out, plan = method(maps, {ListedFrames("mine.json"): torch.tensor([0.0, 1, 0, 0, 1])})
    assert torch.equal(out, maps[[1, 4]].flatten(0, 2))
    assert plan.kept().tolist() == [*range(6, 12), *range(24, 30)]
    assert method.planned_count((5, 2, 3)) is None
    assert method.needs == {ListedFrames("mine.json")}
    assert not method.query_aware


def test_frames_must_be_those_of_the_list():
    marks = {ListedFrames("oracle_frames.json"): torch.ones(4)}
    with pytest.raises(
        ValueError, match=r"counts the 4 frames of the video, but 2 remain: put it before .* use none\+oracle_frames"
    ):
        Chain((Stride(temporal=2), OracleFrames()))(torch.randn(4, 2, 2, 3), marks)
    with pytest.raises(ValueError, match=r"oracle_frames.json must list at least one frame"):
        OracleFrames()(torch.randn(4, 2, 2, 3), {ListedFrames("oracle_frames.json"): torch.zeros(4)})
    with pytest.raises(ValueError, match="file must not be empty"):
        OracleFrames(file=" ")
