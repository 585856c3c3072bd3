"""Blocks cover all features once, or overlap by whole frames; conversion and cosines."""

import pytest
import torch

from stgridpool.algorithms.wide_blocks import WideBlocks


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (40, 7)])
def test_blocks_cover_every_place_of_every_frame_once(shape, depth):
    blocks = WideBlocks.of(torch.empty(*shape, 20000), depth)
    seen = torch.zeros(shape)
    for block in blocks:
        seen[block] += 1
    assert (seen == 1).all()


def test_overlapping_blocks_begin_with_the_last_frames_of_the_one_before():
    """13 rows fill a block, 4 frames of 3 places, so 10 frames of 5 places make three blocks twice."""
    blocks = WideBlocks.of(torch.empty(10, 5, 20000), 4)
    assert (blocks.frames, blocks.places) == (4, 3)
    frames = [(frame.start, min(frame.stop, 10)) for frame, place in blocks.overlapping(1) if place.start == 0]
    assert frames == [(0, 4), (3, 7), (6, 10)]
    assert {(place.start, place.stop) for _, place in blocks.overlapping(1)} == {(0, 3), (3, 6)}


def test_float32_is_not_copied_and_other_dtypes_keep_their_values():
    features = torch.randn(2, 3, 4)
    blocks = WideBlocks.of(features)
    assert blocks.wide(features).data_ptr() == features.data_ptr()
    assert torch.equal(blocks.wide(features.bfloat16()), features.bfloat16().float())
