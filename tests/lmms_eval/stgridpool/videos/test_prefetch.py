"""Videos are loaded ahead, in order, a bounded number of them."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llava.image_processing import VisionImageProcessor
from llava.video import VideoClip, VideoReadError, read_video
from llava.video_process import VideoReader
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.videos.prefetch import VideoLoader


@pytest.fixture
def make_loader(checkpoint):
    def make(**arguments):
        settings = LlavaArguments(pretrained=str(checkpoint), max_frames_num=8, **arguments)
        return VideoLoader(VisionImageProcessor(384), settings, torch.float32, pin=False)

    return make


@pytest.fixture
def make_sharing(make_loader, share_reading):
    """Function that makes a loader with the process of all tests."""

    def make(**arguments):
        loader = make_loader(**arguments)
        share_reading(loader._reader)
        return loader

    return make


@pytest.fixture
def reads(monkeypatch):
    """Names of the videos that are read, in order; `gate` must be set for a read to end."""
    names, gate = [], threading.Event()
    gate.set()

    def read(self, path, **options):
        names.append(path.name)
        assert gate.wait(60)
        if path.name == "bad.mp4":
            raise VideoReadError(str(path), "broken")
        return VideoClip(np.full((2, 4, 4, 3), len(names), np.uint8), [0, 1], [0.0, 1.0], 2.0)

    monkeypatch.setattr(VideoReader, "read", read)
    return names, gate


def wait_until(condition):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + 60
        time.sleep(0.001)


def paths(tmp_path, *names):
    return [tmp_path / f"{name}.mp4" for name in names]


def test_pixels_are_those_of_plain_reading(make_sharing, clips):
    path = clips / "v1.mp4"
    clip = read_video(path, 8)
    expected = VisionImageProcessor(384).preprocess(clip.frames, return_tensors="pt")["pixel_values"]
    for prefetch in (0, 2):
        loader = make_sharing(prefetch=prefetch)
        loader.expect([path])
        loaded = loader.get(path)
        assert torch.equal(loaded.frames, expected)
        assert (loaded.times, loaded.duration) == (tuple(clip.times), clip.duration)
        assert set(loaded.seconds) == {"decode", "preprocess"}


def test_a_rate_takes_the_last_frame_too_of_files_and_folders(make_sharing, clips, tmp_path):
    for index in range(7):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{index}.png")
    assert make_sharing().get(clips / "v1.mp4").times == (0, 1, 2, 3, 4, 5, 6)
    assert make_sharing(fps=0.5).get(clips / "v1.mp4").times == (0, 2, 4, 6, 6.875)  # 8 frames a second
    assert len(make_sharing().get(tmp_path).times) == 7
    assert make_sharing(fps=1).get(tmp_path).times == pytest.approx((0, 1, 2))  # of three pictures a second


def test_frames_are_spread_over_a_short_folder_as_over_a_short_file(make_sharing, clips, tmp_path):
    for index in range(3):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{index}.png")
    for path in (clips / "v1.mp4", tmp_path):
        assert len(make_sharing(force_sample=True).get(path).times) == 8  # the most that is taken


def test_a_few_are_loaded_ahead(make_loader, reads, tmp_path):
    names, _ = reads
    loader = make_loader(prefetch=2, decode_threads=1)
    videos = paths(tmp_path, *"abcdef")
    loader.expect(videos)
    wait_until(lambda: len(names) == 2)
    assert [path.name for path, _ in loader._loading] == ["a.mp4", "b.mp4"]
    loader.get(videos[0])
    wait_until(lambda: len(names) == 3)
    assert [path.name for path, _ in loader._loading] == ["b.mp4", "c.mp4"]
    for video in videos[1:]:
        loader.get(video)
    assert names == [f"{name}.mp4" for name in "abcdef"]


def test_reading_goes_on_while_the_model_works(make_loader, reads, tmp_path):
    names, gate = reads
    loader = make_loader(prefetch=2, decode_threads=2)
    gate.clear()
    loader.expect(paths(tmp_path, *"ab"))
    wait_until(lambda: sorted(names) == ["a.mp4", "b.mp4"])  # both have begun, and nobody has waited for them
    gate.set()


def test_without_prefetch_nothing_is_read_before_it_is_asked_for(make_loader, reads, tmp_path):
    names, _ = reads
    loader = make_loader(prefetch=0)
    videos = paths(tmp_path, "a", "b")
    loader.expect(videos)
    assert not loader._loading
    loader.get(videos[1])
    assert names == ["b.mp4"]


def test_what_was_not_expected_is_read_all_the_same(make_loader, reads, tmp_path):
    names, _ = reads
    loader = make_loader(prefetch=1)
    first, second, other = paths(tmp_path, "a", "b", "c")
    loader.expect([first, second])
    loader.get(other)
    assert "c.mp4" in names
    loader.get(first)
    loader.get(second)
    assert sorted(names) == ["a.mp4", "b.mp4", "c.mp4"]


@pytest.mark.parametrize("skipped", [1, 4])
def test_after_videos_that_nobody_asks_for_the_next_are_those_loaded_ahead(make_loader, reads, tmp_path, skipped):
    names, _ = reads
    loader = make_loader(prefetch=2, decode_threads=1)
    *_, asked, second, third = videos = paths(tmp_path, *"abcdefg"[: skipped + 3])
    loader.expect(videos)
    loader.get(asked)
    wait_until(lambda: names[-2:] == [second.name, third.name])
    loader.get(second)
    loader.get(third)
    assert len(names) == len(set(names))  # each is read once


def test_a_broken_video_fails_when_it_is_asked_for(make_loader, reads, tmp_path):
    loader = make_loader(prefetch=2)
    good, bad = paths(tmp_path, "a", "bad")
    loader.expect([good, bad, good])
    loader.get(good)
    with pytest.raises(VideoReadError, match="broken"):
        loader.get(bad)
    loaded = loader.get(good)
    assert loaded.frames.shape == (1, 3, 384, 384)
    assert loaded.distinct.which == (0, 0)  # two pictures of one colour


def test_a_video_has_its_time_and_memory(make_loader, clips, misbehave):
    misbehave()
    with pytest.raises(VideoReadError, match=r"stopped.mp4: reading took longer than 0.5 s"):
        make_loader(decode_timeout_s=0.5).get(Path("stopped.mp4"))
    with pytest.raises(VideoReadError, match=r"greedy.mp4: reading takes more than 0.6 GB of memory"):
        make_loader(decode_memory_gb=0.6).get(Path("greedy.mp4"))
    assert make_loader().get(clips / "v1.mp4").duration == 7


def test_videos_are_read_by_one_process_for_each_thread(make_loader, clips, misbehave):
    begun = misbehave()
    loader = make_loader(decode_threads=2)
    videos = [clips / f"v{index % 3}.mp4" for index in range(6)]
    loader.expect(videos)
    for video in videos:
        loader.get(video)
    assert len({process for _, process in begun()}) <= 2
    loader.close()
    for _, process in begun():
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


@pytest.mark.parametrize(("name", "value"), [("decode_threads", 0), ("prefetch", -1), ("prefetch", "two")])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number from"):
        LlavaArguments(pretrained="x", **{name: value})


def test_damaged_videos_are_counted_or_failed(make_loader, reads, tmp_path, monkeypatch):
    clip = VideoClip(np.zeros((2, 4, 4, 3), np.uint8), [0, 1], [0.0, 1.0], 2.0, num_damaged=3)
    monkeypatch.setattr(VideoReader, "read", lambda self, path, **options: clip)
    (video,) = paths(tmp_path, "v")
    assert make_loader().get(video).num_damaged == 3
    with pytest.raises(VideoReadError, match=r"v\.mp4: damaged: the decoder reported 3 signs of damage"):
        make_loader(damaged_videos="fail").get(video)


def test_frames_are_taken_by_time_where_that_is_asked_for(make_sharing, write_video, tmp_path):
    path = write_video(tmp_path / "slides.mkv", num_frames=3, rate=1, times=[0, 2, 5])
    assert make_sharing(sampling="time").get(path).times == (0, 0, 2, 2, 2, 5)
    assert make_sharing().get(path).times == (0, 2, 5)
