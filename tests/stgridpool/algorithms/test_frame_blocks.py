"""Features in blocks: every token is in one block, as it is, and blocks are of whole tiles."""

import pytest
import torch

from stgridpool.algorithms import frame_blocks
from stgridpool.algorithms.frame_blocks import FrameBlocks
from stgridpool.video_tokens import VideoTokens


def video(places, frames=6, width=4, cell=None, dtype=torch.float32):
    """A video of one row of places, and features that all differ."""
    features = torch.arange(1.0, frames * places * width + 1).view(frames * places, width).to(dtype)
    return VideoTokens(features if cell is None else features[cell], (frames, 1, places), cell)


@pytest.mark.parametrize("places", [1, 5, 16, 17, 40, 48, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("is_ragged", [False, True])
def test_every_token_is_new_in_one_block(places, dtype, is_ragged, monkeypatch):
    """Blocks of 16 or 32 places in four of six frames."""
    monkeypatch.setattr(frame_blocks, "_ENTRIES_ON_CPU", 4 * 4 * 32)
    cell = torch.arange(0, 6 * places, 3) if is_ragged else None
    tokens = video(places, cell=cell, dtype=dtype)
    frames, found = FrameBlocks.of(tokens), []
    for number, (blocks, sizes) in enumerate(frames.groups(frames.sizes)):
        assert len(sizes) == (4, 2)[number]
        for block in blocks:
            assert block.rows.dtype == torch.float32
            assert block.rows.shape[1] in (16, 32)
            assert frames.space_for(block.rows).shape == block.rows.shape
            found.append(block.new.transpose(1, 2).clone())
    assert torch.equal(frames.of_each_token(frames.joined(found).transpose(1, 2)), tokens.features.float())


def test_float_features_are_not_copied():
    """Unless a frame is smaller than a tile."""
    for places, is_copied in ((15, True), (16, False), (17, False), (40, False)):
        tokens = video(places)
        frames = FrameBlocks.of(tokens)
        assert (frames.copied is not None) == is_copied
        for blocks, _ in frames.groups(frames.sizes):
            for block in blocks:
                storage = block.rows.untyped_storage().data_ptr()
                assert (storage != tokens.features.untyped_storage().data_ptr()) == is_copied


@pytest.mark.parametrize("places", [5, 40])
def test_scaled_features_are_at_most_one(places):
    tokens = video(places)
    tokens.features[7] = 3e38
    frames = FrameBlocks.of(tokens).scaled()
    found = [block.new.abs().max() for blocks, _ in frames.groups(frames.sizes) for block in blocks]
    assert max(found) == 1
