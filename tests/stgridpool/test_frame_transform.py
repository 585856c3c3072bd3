"""Steps on frames: what they are applied to, and where the tokens of pictures come from."""

import pytest
import torch

from stgridpool import PTG, Average, Step, STGridPool, VideoTokens
from stgridpool.compressor import FRAMES, PATCHES, early_steps, planned_counts
from stgridpool.compressors.image_grid import ImageGrid
from stgridpool.equal_budget import Reference, planned_layers
from stgridpool.frame_evidence import FramesRead
from stgridpool.frame_transform import transformed
from stgridpool.provenance import plan_of_frames


def test_steps_on_frames_act_in_order_and_others_are_skipped():
    frames = torch.randn(9, 3, 4, 4)
    gridding = PTG(window=4, levels=1, gridding="images", write="append")
    steps = (*gridding.steps(), *ImageGrid(frames=2).steps(), Step(Average(), PATCHES))
    made = transformed(steps, frames)
    assert torch.equal(made, ImageGrid(frames=2).pictures(gridding.pictures(frames)))
    assert len(made) == 6  # 9 and 2 mosaics, two to a picture
    assert transformed(Average().steps(), frames) is frames


def test_what_cannot_act_on_frames_is_refused():
    frames = torch.randn(4, 3, 4, 4)
    with pytest.raises(TypeError, match="at place 'frames' must be a FrameTransform, got Average"):
        transformed((Step(Average(), FRAMES),), frames)
    with pytest.raises(ValueError, match=r"frames must be \(frames, channels, height, width\), got \(4, 48\)"):
        transformed(ImageGrid().steps(), frames.flatten(1))


def test_gridding_of_images_comes_before_the_tower():
    method = STGridPool(preset="ablation/image_gridding")
    assert [step.place for step in method.steps()] == [FRAMES, PATCHES]
    assert early_steps(method) == method.ptg.steps()
    assert [step.place for step in STGridPool().steps()] == [PATCHES]
    assert method.planned_shape((64, 27, 27)) == STGridPool().planned_shape((64, 27, 27)) == (64, 13, 13)
    assert planned_counts(method.steps(), (64, 27, 27)) == [64 * 729, 64 * 169]


def test_the_own_pooling_follows_pictures():
    """13 frames make 3 pictures, which 2x2 windows pool to 4x4 tokens each."""
    own = Reference(Average(kernel_size=2), (8, 8), 3)
    assert planned_layers(ImageGrid(), 13, own) == [3 * 16] * 3


def test_tokens_of_pictures_are_traced_to_patches_of_frames():
    """Four frames of 2x2 patches in one picture: each patch of it is the mean of a frame's."""
    patches = VideoTokens.of(torch.randn(1, 2, 2, 8))
    read, plan = plan_of_frames(ImageGrid(frames=4).steps(), {FramesRead(): torch.tensor([4])}, patches)
    assert (read, plan.num_sources, plan.shape, plan.reproduces) == ((4, 2, 2), 16, (1, 2, 2), False)
    assert plan.rows.sources.view(4, 4).tolist() == torch.arange(16).view(4, 4).tolist()
    assert plan.rows.weights.tolist() == [0.25] * 16
    assert plan.anchor.tolist() == [0, 4, 8, 12]


def test_the_number_of_frames_must_be_known_and_fit():
    patches, steps = VideoTokens.of(torch.randn(2, 2, 2, 8)), ImageGrid(frames=4).steps()
    with pytest.raises(ValueError, match=r"ImageGrid\(frames=4\) changes frames: give FramesRead\(\)"):
        plan_of_frames(steps, {}, patches)
    with pytest.raises(ValueError, match=r"makes patches of \(1, 2, 2\) from \(4, 2, 2\), got \(2, 2, 2\)"):
        plan_of_frames(steps, {FramesRead(): torch.tensor([4])}, patches)
