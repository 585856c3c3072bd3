"""IG-VLM's picture of frames: by hand, as pixels and as tokens."""

import pytest
import torch

from stgridpool import Average, Chain, build_compressor
from stgridpool.compressor import FRAMES, Step
from stgridpool.compressors.image_grid import ImageGrid


def test_six_frames_stand_in_three_rows_of_two():
    """Frames of one colour each, 6x4: tiles of 2x2."""
    frames = torch.arange(1.0, 7).view(6, 1, 1, 1).expand(6, 3, 6, 4)
    picture = ImageGrid().pictures(frames)
    assert picture.shape == (1, 3, 6, 4)
    assert picture[0, 0].tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2 + [[5, 5, 6, 6]] * 2


def test_frames_are_resized_by_area():
    """Two frames one above the other: each new pixel is the mean of two rows."""
    frames = torch.tensor([[[[0.0, 2], [4, 6]]], [[[8.0, 0], [0, 4]]]])  # (2, 1, 2, 2)
    assert ImageGrid(frames=2).pictures(frames).tolist() == [[[[2, 4], [4, 2]]]]


def test_tiles_without_a_frame_stay_blank():
    """Five frames, four to a picture: the second picture has three blank tiles of 1x1."""
    frames = torch.arange(1.0, 6).view(5, 1, 1, 1).expand(5, 1, 2, 2)
    pictures = ImageGrid(frames=4).pictures(frames)
    assert pictures.tolist() == [[[[1, 2], [3, 4]]], [[[5, 0], [0, 0]]]]
    tokens, plan = ImageGrid(frames=4)(frames.permute(0, 2, 3, 1))
    assert tokens.flatten().tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
    assert plan.anchor.tolist() == [0, 4, 8, 12, 16, 16, 16, 16]  # blank ones stand in the last frame
    assert plan.sizes().tolist() == [4, 4, 4, 4, 4, 0, 0, 0]


def test_few_frames_make_a_picture_of_their_own_number():
    frames = torch.randn(1, 3, 4, 4)
    assert torch.equal(ImageGrid().pictures(frames), frames)
    assert ImageGrid().planned_shape((2, 7, 7)) == ImageGrid().planned_shape((6, 7, 7)) == (1, 7, 7)
    assert ImageGrid().planned_shape((64, 7, 7)) == (11, 7, 7)


@pytest.mark.parametrize("shape", [(1, 5, 4), (7, 4, 6), (13, 3, 3)])
@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_tokens_are_what_pixels_are(shape, size):
    frames = torch.randn(shape[0], 3, *shape[1:])
    tokens, plan = ImageGrid(frames=size)(frames.permute(0, 2, 3, 1).contiguous())
    pictures = ImageGrid(frames=size).pictures(frames)
    torch.testing.assert_close(tokens, pictures.permute(0, 2, 3, 1).reshape(-1, 3))
    assert plan.shape == (len(pictures), *shape[1:])


def test_it_acts_on_frames_before_all_others():
    method = build_compressor("image_grid+average+fastv", image_grid={"frames": 4})
    assert [step.place for step in method.steps()] == [FRAMES, "patches", 2]
    assert method.steps()[0] == Step(ImageGrid(frames=4), FRAMES)
    with pytest.raises(ValueError, match=r"ImageGrid.* acts at place 'frames', before Average.* at place 'patches'"):
        Chain((Average(), ImageGrid()))


def test_bad_options():
    with pytest.raises(ValueError, match="frames must be a whole number from 1 to 256, got 0"):
        ImageGrid(frames=0)
