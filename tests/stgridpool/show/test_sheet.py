"""The contact sheet: which rows it has, and what it refuses."""

import numpy as np
import pytest
import torch

from stgridpool import Plan
from stgridpool.show import HeatMap, Trace, contact_sheet
from stgridpool.show.drawing import Drawing
from stgridpool.show.sheet import summary

SHAPE = (12, 2, 2)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (12, 32, 64, 3), dtype=np.uint8)


def make(name, **kwargs):
    return Trace.of(name, Plan.keep(torch.arange(0, 48, 4), 48), SHAPE, **kwargs)


def test_each_method_has_a_row_of_patches_and_one_of_tokens(frames):
    one, two = contact_sheet(frames, [make("a")]), contact_sheet(frames, [make("a"), make("b")])
    assert one.width == two.width == 1600
    tile = (1600 - 2 * 24 - 96 - 9 * 6) // 10  # ten of the twelve frames, half as high as wide
    assert two.height - one.height == 46 + 2 * (round(tile / 2) + 6)


def test_heat_maps_are_rows_of_their_own(frames):
    trace = make("a", heat_maps=[HeatMap("norm", torch.arange(48.0))])
    plain, hot = contact_sheet(frames, [trace]), contact_sheet(frames, [trace], heat_maps=True)
    assert hot.height - plain.height == round((1600 - 2 * 24 - 96 - 9 * 6) // 10 / 2) + 6


def test_methods_with_a_short_video_fill_the_width(frames):
    trace = Trace.of("a", Plan.keep(torch.tensor([0]), 8), (2, 2, 2))
    sheet = contact_sheet(frames[:2], [trace], times=[0.0, 1.5], width=800)
    assert sheet.width == 800


def test_the_summary_counts_tokens_and_lost_patches():
    trace = make("a")
    assert summary(trace, Drawing.of(trace.stages[-1], SHAPE)) == "12 tokens of 48 patches; 75% of the patches are lost"


def test_a_lost_patch_is_not_none():
    trace = Trace.of("a", Plan.keep(torch.arange(1, 1000), 1000), (10, 10, 10))
    drawing = Drawing.of(trace.stages[-1], (10, 10, 10))
    assert summary(trace, drawing) == "999 tokens of 1000 patches; less than 1% of the patches are lost"


def test_a_picture_without_room_for_its_frames_is_refused(frames):
    """Twelve frames of 16 pixels and the gaps between them take 258, margins and words 144."""
    assert contact_sheet(frames, [make("a")], most_frames=12, width=402).width == 402
    with pytest.raises(ValueError, match="a picture 401 pixels wide has room for 11 frames, got 12: show fewer"):
        contact_sheet(frames, [make("a")], most_frames=12, width=401)


def test_traces_must_be_of_the_video(frames):
    other = Trace.of("b", Plan.keep(torch.tensor([0]), 8), (2, 2, 2))
    with pytest.raises(ValueError, match=r"the same patches of one video, got traces of \[\(2, 2, 2\), \(12, 2, 2\)\]"):
        contact_sheet(frames, [make("a"), other])
    with pytest.raises(ValueError, match=r"one for each of the 12 frames of the patches, got uint8 \(3, 32, 64, 3\)"):
        contact_sheet(frames[:3], [make("a")])
    with pytest.raises(ValueError, match="got float64"):
        contact_sheet(frames / 255, [make("a")])
