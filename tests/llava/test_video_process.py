"""Every file of a data set is read, or named with the reason why not; none stops or ends the process that asks."""

import re
import sys
import time

import av
import numpy as np
import pytest

from llava.video import BACKENDS, VideoReadError, read_video
from llava.video_process import read_video_apart

READABLE = [
    "a name with spaces, ünïcode 视频.mp4",
    "declares_huge_times.mp4",
    "declares_no_size.mp4",
    "no_duration.h264",
    "one_frame.mp4",
    "one_pixel.mp4",
    "rotated.mp4",
    "ten_bit.mp4",
    "trimmed_by_an_edit_list.mp4",
    "variable_rate.mp4",
]


def test_the_folder_holds_what_is_tested(odd_videos):
    assert list(odd_videos.readable) == READABLE


@pytest.mark.parametrize("name", READABLE)
def test_odd_videos_are_read_as_a_player_shows_them(odd_videos, name):
    path = odd_videos.folder / name
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24", dst_colorspace="DEFAULT") for frame in container.decode(video=0)]
    if name == "rotated.mp4":
        expected = [np.rot90(frame, -1) for frame in expected]  # clockwise
    num_frames = odd_videos.readable[name]
    clip = read_video_apart(path, 60, max_frames_num=num_frames, force_sample=True)
    assert clip.indices == list(range(num_frames))
    np.testing.assert_array_equal(clip.frames, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unreadable_videos_are_named_with_the_reason(odd_videos, backend):
    for name, reason in odd_videos.unreadable.items():
        path = odd_videos.folder / name
        options = {} if path.is_dir() else {"max_frames_num": 60, "fps": 1000, "backend": backend}
        with pytest.raises(VideoReadError, match=reason) as caught:
            read_video_apart(path, 60, **options)
        assert caught.value.path == str(path)
        assert "\n" not in caught.value.reason


def test_a_clip_comes_back_as_it_was_read(odd_videos):
    path = odd_videos.folder / "ten_bit.mp4"
    here, apart = read_video(path, 7, fps=8), read_video_apart(path, 60, max_frames_num=7, fps=8)
    np.testing.assert_array_equal(apart.frames, here.frames)
    assert vars(apart) | {"frames": None} == vars(here) | {"frames": None}
    apart.frames[0] = 0  # the pixels are the caller's own


def test_what_is_stuck_in_the_decoder_is_given_up(odd_videos):
    started = time.monotonic()
    with pytest.raises(VideoReadError, match=r"stuck\.mp4: reading took longer than 1\.5 s"):
        read_video_apart(odd_videos.stuck, 1.5)
    assert 1.5 <= time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "the decoder crashed with SIGSEGV"),
        ("exit 3", "the reading process failed with status 3"),
        ("echo '{\"frames\": [1, 2, 2, 3]}'; printf 0123; kill -ABRT $$", "the decoder crashed with SIGABRT"),
    ],
)
def test_a_process_that_ends_early_is_a_failed_video(tmp_path, monkeypatch, script, reason):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(VideoReadError, match=re.escape(reason)):
        read_video_apart("v.mp4", 60)
