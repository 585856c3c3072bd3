"""Steps on frames through a checkpoint: the tower sees pictures, and tokens are traced to the frames."""

import pytest
import torch

from stgridpool import STGridPool, build_compressor
from stgridpool.compressors.image_grid import ImageGrid


@pytest.fixture
def model(video_checkpoint):
    yield video_checkpoint.model
    video_checkpoint.model.compressor = None


@torch.no_grad()
def test_the_tower_sees_pictures(model, video_frames):
    """Eight frames are two pictures of 4; the checkpoint's own pooling follows, 7x7 patches to 4x4."""
    model.compressor = ImageGrid(frames=4)
    video = model.encode_video(video_frames[:8])
    model.compressor = None
    plain = model.encode_video(ImageGrid(frames=4).pictures(video_frames[:8]))
    assert torch.equal(video.embeds, plain.embeds)
    assert (video.source_shape, plain.source_shape) == ((8, 7, 7), (2, 7, 7))
    assert (video.shape, video.num_tokens, video.plan.num_sources) == ((2, 4, 4), 32, 8 * 49)
    frames = video.plan.rows.sources // 49
    of_first, of_second = frames[: int(video.plan.rows.offsets[16])], frames[int(video.plan.rows.offsets[16]) :]
    assert (set(of_first.tolist()), set(of_second.tolist())) == ({0, 1, 2, 3}, {4, 5, 6, 7})
    with pytest.raises(ValueError, match="does not determine the values"):
        video.plan.apply(torch.randn(8 * 49, 4))


@torch.no_grad()
@pytest.mark.parametrize("write", ["replace", "append"])
def test_gridding_of_images(model, video_frames, write):
    """16 frames: four mosaics, and two more of sampled frames, which replace two of the first."""
    method = STGridPool(window=4, levels=2, write=write, gridding="images")
    model.compressor = method
    video = model.encode_video(video_frames[:16])
    frames = 22 if write == "append" else 16
    assert video.shape == (frames, 3, 3)
    assert len(video.plan) == method.planned_count((16, 7, 7)) == frames * 9
    model.compressor = build_compressor("nsp")
    plain = model.encode_video(method.ptg.pictures(video_frames[:16]))
    assert torch.equal(video.embeds, plain.embeds)
    rows = video.plan.flatten().rows
    shown = [set() for _ in range(frames)]
    for token, source in zip(rows.row_of_entry().tolist(), rows.sources.tolist(), strict=True):
        shown[token // 9].add(source // 49)
    assert sum(len(several) > 1 for several in shown) == (6 if write == "append" else 4)


@torch.no_grad()
def test_features_alone_do_not_tell_the_number_of_frames(model, video_frames):
    model.compressor = ImageGrid(frames=4)
    features, _ = model.vision_features(video_frames[:2])
    with pytest.raises(ValueError, match=r"changes frames: give FramesRead\(\)"):
        model.encode_features(features)
