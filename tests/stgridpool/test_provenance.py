"""Patches of frames that were tiled, and then merged in the vision tower, traced to the frames that were read."""

import pytest
import torch

from stgridpool import EarlyTomFrames, VideoTokens
from stgridpool.compressors.image_grid import ImageGrid
from stgridpool.frame_evidence import FrameSources, FramesRead
from stgridpool.provenance import plan_of_frames

MERGING = EarlyTomFrames(layers=(-1,)).steps()


def test_merged_frames_are_traced_to_the_same_places():
    """Three frames of 1x2 patches, of which the last two were merged."""
    weights = torch.tensor([[1.0, 0, 0], [0, 0.25, 0.75]])
    patches = VideoTokens.of(torch.randn(2, 1, 2, 8))
    read, plan = plan_of_frames(MERGING, {FrameSources(): weights}, patches)
    assert (read, plan.num_sources, plan.shape, plan.reproduces) == ((3, 1, 2), 6, (2, 1, 2), False)
    assert plan.rows.sources.tolist() == [0, 1, 2, 4, 3, 5]
    assert plan.rows.weights.tolist() == [1, 1, 0.25, 0.75, 0.25, 0.75]
    assert plan.anchor.tolist() == [0, 1, 2, 3]


def test_pictures_that_were_merged():
    """Four frames of 2x2 patches in two pictures of 2x1 tiles, which became one."""
    steps = (*ImageGrid(frames=2).steps(), *MERGING)
    evidence = {FramesRead(): torch.tensor([4]), FrameSources(): torch.tensor([[0.5, 0.5]])}
    read, plan = plan_of_frames(steps, evidence, VideoTokens.of(torch.randn(1, 2, 2, 8)))
    assert (read, plan.shape) == ((4, 2, 2), (1, 2, 2))
    first = plan.rows.sources[: int(plan.rows.offsets[1])]  # the left column of frames 0 and 2
    assert first.tolist() == [0, 2, 8, 10]
    assert plan.rows.weights.tolist() == [0.25] * 16


@pytest.mark.parametrize("missing", [FramesRead(), FrameSources()])
def test_what_tells_how_frames_changed_must_be_there(missing):
    evidence = {FramesRead(): torch.tensor([4]), FrameSources(): torch.tensor([[0.5, 0.5]])}
    del evidence[missing]
    with pytest.raises(ValueError, match=rf"changes frames: give {type(missing).__name__}\(\), which tells how"):
        plan_of_frames((*ImageGrid(frames=2).steps(), *MERGING), evidence, VideoTokens.of(torch.randn(1, 2, 2, 8)))
