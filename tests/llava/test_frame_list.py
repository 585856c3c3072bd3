"""Frames that are listed first and then read by index, as native models need them."""

from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image

from llava.frame_list import FrameList, list_frames
from llava.video import VideoReadError, read_frame_folder, read_video
from llava.video_process import VideoReader


@pytest.fixture(scope="module")
def path(tmp_path_factory, write_video):
    return write_video(tmp_path_factory.mktemp("listed") / "video.mp4")


def test_a_file_says_how_many_frames_it_has_and_at_which_rate(path):
    assert astuple(list_frames(path)) == pytest.approx((60, 24, 2.5))


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_frames_are_read_by_index_and_may_repeat(path, backend):
    whole = read_video(path, 60, force_sample=True)
    clip = read_video(path, indices=[0, 7, 7, 59], backend=backend)
    assert clip.indices == [0, 7, 7, 59]
    assert clip.times == pytest.approx([0, 7 / 24, 7 / 24, 59 / 24])
    assert np.abs(clip.frames.astype(int) - whole.frames[[0, 7, 7, 59]]).max() <= 3  # colours round differently
    assert (clip.num_frames, clip.frame_rate, clip.duration) == pytest.approx((60, 24, 2.5))


def test_the_last_frame_stands_in_for_those_behind_it(path):
    assert read_video(path, indices=[58, 61]).indices == [58, 59]


@pytest.mark.parametrize("indices", [[], [3, 1], [-1]])
def test_indices_that_are_none_or_out_of_order_are_refused(path, indices):
    with pytest.raises(ValueError, match="indices must be at least one, none below 0, ascending, got"):
        read_video(path, indices=indices)


def test_a_folder_of_pictures_is_listed_and_read_by_index(tmp_path):
    for number in range(4):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    assert list_frames(tmp_path) == FrameList(4, 3.0, 4 / 3)
    clip = read_frame_folder(tmp_path, indices=[1, 3])
    assert clip.frames[:, 0, 0, 0].tolist() == [1, 3]
    assert clip.times == pytest.approx([1 / 3, 1])


def test_a_reading_process_lists_and_reads(path, tmp_path):
    reader = VideoReader(60)
    try:
        assert astuple(reader.list_frames(path)) == pytest.approx((60, 24, 2.5))
        assert reader.read(path, indices=[5]).indices == [5]
        (tmp_path / "broken.mp4").write_text("no video\n" * 99)
        with pytest.raises(VideoReadError, match=r"broken\.mp4"):
            reader.list_frames(tmp_path / "broken.mp4")
        with pytest.raises(VideoReadError, match="no such file"):
            reader.list_frames(tmp_path / "missing.mp4")
    finally:
        reader.close()
