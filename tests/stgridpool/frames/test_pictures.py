"""Mosaics of pictures: the golden numbers of the original, and the same as mosaics of tokens."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import PTG
from stgridpool.frames.pictures import gridded, tiled


def test_pictures_equal_the_original(golden):
    folder = golden / "stgridpool"
    tensors = load_file(folder / "grid_image.safetensors")
    cases = json.loads((folder / "grid_image_cases.json").read_text())
    assert cases
    for case in cases:
        frames, expected = (tensors[f"{kind}_n{case['n']}_K{case['K']}"] for kind in ("frames", "grid"))
        torch.testing.assert_close(tiled(frames[None])[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("write", ["replace", "append", "blend"])
@pytest.mark.parametrize("num_frames", [1, 3, 8, 19, 33])
def test_gridding_pixels_is_gridding_tokens(write, num_frames):
    """Pixels as tokens of width 3 on a lattice of 6x10."""
    frames = torch.randn(num_frames, 3, 6, 10)
    method = PTG(window=4, levels=3, write=write)
    before = frames.clone()
    pictures = gridded(frames, method.pyramid, write)
    tokens, plan = method(frames.permute(0, 2, 3, 1).contiguous())
    torch.testing.assert_close(pictures.permute(0, 2, 3, 1).reshape(-1, 3), tokens)
    assert len(pictures) == plan.shape[0]
    assert torch.equal(frames, before)


def test_half_precision_stays():
    frames = torch.randn(8, 3, 6, 6).bfloat16()
    assert gridded(frames, PTG(window=4, levels=1).pyramid).dtype == torch.bfloat16
