"""Frames of lmms-eval's Qwen models: what qwen_vl_utils, which these call, chooses and resizes."""

import numpy as np
import pytest
import torch
from qwen_vl_utils import vision_process

from lmms_eval_stgridpool.videos.stock_frames import PIXELS, AllFrames, QwenFrames
from stgridpool.adapters.frame_rules import Source

SMALL = {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}
LIMITS = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}


@pytest.fixture
def fetch(monkeypatch):
    """Function that returns what qwen_vl_utils makes of frames that it has read."""

    def fetch(frames, patch_size, pixels):
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "given")
        monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "given", lambda element: (video, {}, 2.0))
        element = {"video": "clip.mp4"} | {name: pixels[edge] for name, edge in LIMITS.items()}
        return vision_process.fetch_video(element, image_patch_size=patch_size)

    return fetch


@pytest.mark.parametrize("patch_size", [14, 16])
@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ((2, 70, 90), SMALL),  # within the limits: to whole tokens
        ((2, 400, 100), SMALL),  # too large
        ((2, 20, 50), SMALL),  # too small
        ((2, 10, 150), SMALL),  # a side shorter than a token
        ((2, 120, 900), PIXELS),  # lmms-eval's own limits, too small
        ((2, 1300, 1300), PIXELS),  # larger than 768 tokens
        ((2, 260, 260), {"shortest_edge": 4 * 28 * 28, "longest_edge": 10**9}),
    ],
)
def test_sizes_and_pixels(fetch, patch_size, shape, pixels):
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    rule = QwenFrames(patch_size, patch_size == 14, 8, None, pixels)
    resized, options = rule.prepare(frames)
    expected = fetch(frames, patch_size, pixels)
    assert resized.shape == expected.shape
    assert torch.equal(resized, expected)
    assert options == ({} if patch_size == 14 else {"do_resize": False})


def test_many_frames_share_the_context(fetch):
    """Above 300 frames of two in a token, each gets fewer than 768 tokens."""
    frames = np.zeros((600, 64, 64, 3), dtype=np.uint8)
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 10**9}
    rule = QwenFrames(14, True, 600, None, pixels)
    assert rule._size(2000, 2000, 600) == tuple(
        vision_process.smart_resize(2000, 2000, 28, 28 * 28, 128_000 * 0.9 * 28 * 28 / 600 * 2)
    )
    assert rule.prepare(frames)[0].shape == fetch(frames, 14, pixels).shape


@pytest.mark.parametrize("fps", [0.2, 1, 2, 7.5, 100])
@pytest.mark.parametrize("total", [4, 5, 57, 240, 3000])
def test_numbers_of_frames_at_a_rate(fps, total):
    """`qwen2_5_vl` passes the rate alone, `qwen3_vl` also the maximum."""
    source = Source(total, 24.0)
    expected = vision_process.smart_nframes({"fps": fps}, total, 24.0)
    assert len(QwenFrames(14, True, 8, fps, PIXELS).choose(source)) == expected
    limited = vision_process.smart_nframes({"fps": fps, "max_frames": min(8, total)}, total, 24.0)
    assert len(QwenFrames(16, False, 8, fps, PIXELS).choose(source)) == limited


@pytest.mark.parametrize("total", [2, 3, 7, 240])
def test_frames_without_a_rate_are_spread(total):
    count = vision_process.smart_nframes({"nframes": min(8, total) // 2 * 2}, total, 24.0)
    expected = torch.linspace(0, total - 1, count).round().long().tolist()
    assert QwenFrames(14, True, 8, None, PIXELS).choose(Source(total, 24.0)) == expected
    assert QwenFrames(14, True, 8, None, PIXELS).choose(Source(1, 24.0)) == [0, 0]


def test_llava_hf_reads_every_frame():
    assert AllFrames().choose(Source(5, 24.0)) == [0, 1, 2, 3, 4]
    assert AllFrames(3).choose(Source(5, 24.0)) == [0, 2, 4]
