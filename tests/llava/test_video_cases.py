"""Small files of the kinds that people have: read as a player shows them, by both readers."""

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from llava.video import BACKENDS, read_video

CASES = Path(__file__).parent / "cases"
SHOWN = {  # frames, first time and end in seconds from the start of the file, as `ffmpeg -i FILE` shows them
    "avi_empty_chunks.avi": (151, 0, 4.993),
    "full_range_bt709.mp4": (6, 0, 0.2),
    "intra_refresh.mp4": (150, 0, 5),
    "mediarecorder.webm": (600, 0, 20),
    "mid_gop_start.ts": (90, 19 / 30, 109 / 30),
    "mirrored.mp4": (90, 0, 3),
    "open_gop_h264.mkv": (120, 0, 4),
    "open_gop_hevc.mkv": (120, 0, 4),
    "open_gop_mpeg2.ts": (79, 0, 79 / 30),
    "palette.mov": (60, 0, 2),
    "screen_vfr.mkv": (400, 0, 19.933),
    "size_changes.webm": (120, 0, 4),
    "slides.mkv": (4, 0, 16.04),
    "two_streams_default_second.mkv": (90, 0, 3),
    "vp8_altref.webm": (300, 0, 10),
}


def decoded(path, stream=0):
    """Every frame of a stream, decoded from first to last, with its time and colours by a filter graph."""
    with av.open(str(path)) as container:
        start = container.start_time / av.time_base
        for frame in container.decode(video=stream):
            yield frame, float(frame.pts * frame.time_base) - start


@pytest.mark.parametrize("name", SHOWN)
def test_frames_are_those_that_decoding_everything_gives_at_their_times(name):
    """All of them, and seven alone."""
    count, first, end = SHOWN[name]
    frames = list(decoded(CASES / name, 1 if name.startswith("two_streams") else 0))
    full = {"src_color_range": "JPEG"} if name.startswith("full_range") else {}
    layout = {"width": 160, "height": 96, "interpolation": "BICUBIC", "dst_colorspace": "DEFAULT", **full}
    expected = np.stack([frame.to_ndarray(format="rgb24", **layout) for frame, _ in frames])
    times = [time for _, time in frames]
    if name == "mirrored.mp4":
        expected = expected[:, :, ::-1]
    seven = np.linspace(0, count - 1, 7).astype(int).tolist()
    for backend in BACKENDS:
        clip = read_video(CASES / name, count, force_sample=True, backend=backend)
        assert clip.indices == list(range(count))
        assert clip.num_damaged == 0
        assert clip.times[0] == pytest.approx(first, abs=0.001)
        assert clip.duration == pytest.approx(end, abs=0.035)
        assert clip.times == pytest.approx(times, abs=1e-6)
        assert clip.frames.shape == (count, 96, 160, 3)
        assert largest_difference(clip.frames, expected) <= 3
        some = read_video(CASES / name, 7, force_sample=True, backend=backend)
        assert some.indices == seven
        assert some.times == [clip.times[index] for index in seven]
        assert largest_difference(some.frames, clip.frames[seven]) <= 3


def largest_difference(frames, others):
    """Of two arrays of bytes, which a wider type would only make slower."""
    return int((np.maximum(frames, others) - np.minimum(frames, others)).max())


def test_full_range_uses_all_levels():
    frames = read_video(CASES / "full_range_bt709.mp4", 1).frames
    limited = next(decoded(CASES / "full_range_bt709.mp4"))[0]
    luma = limited.to_ndarray()[:96].astype(int)
    assert np.abs(frames[0] @ [0.2126, 0.7152, 0.0722] - luma).mean() < 2


def test_one_frame_per_second_by_the_times_where_no_rate_is_declared():
    clip = read_video(CASES / "mediarecorder.webm")
    assert len(clip.indices) == 20
    assert np.abs(np.array(clip.times) - np.arange(20)).max() < 0.04


def test_frames_by_time_are_those_on_the_screen_at_every_second(caplog):
    with caplog.at_level(logging.WARNING):
        clip = read_video(CASES / "slides.mkv", sampling="time")
    assert clip.indices == [0] * 5 + [1] * 8 + [2] * 3 + [3]  # at 0, 5, 13 and 16 s
    assert clip.times == [0] * 5 + [5] * 8 + [13] * 3 + [16]
    assert not caplog.records
    clip = read_video(CASES / "screen_vfr.mkv", sampling="time")
    assert len(clip.times) == 20
    assert np.abs(np.array(clip.times) - np.arange(20)).max() <= 1 / 10


@pytest.mark.parametrize(("name", "warnings"), [("slides.mkv", 1), ("screen_vfr.mkv", 1), ("mirrored.mp4", 0)])
def test_one_warning_where_frames_by_index_and_by_time_differ_by_more_than_a_second(name, warnings, caplog):
    with caplog.at_level(logging.WARNING):
        read_video(CASES / name)
    assert len(caplog.records) == warnings
    assert all(f"{name}: frames taken by index are up to" in one.getMessage() for one in caplog.records)
