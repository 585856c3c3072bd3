"""Every file of a data set is read, or named with the reason why not; none stops or ends the process that asks."""

import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from llava import reading_process
from llava.image_processing import VisionImageProcessor
from llava.video import BACKENDS, VideoReadError, read_frame_folder, read_video
from llava.video_process import ReadingProcessError, VideoReader, _Turns, read_video_apart

READABLE = [
    "a name with spaces, ünïcode 视频.mp4",
    "damaged_in_the_middle.mp4",
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


@pytest.fixture(scope="module")
def reader():
    """Reads in one process what can be read."""
    return VideoReader(60)


def test_the_folder_holds_what_is_tested(odd_videos):
    assert list(odd_videos.readable) == READABLE


@pytest.mark.parametrize("name", READABLE)
def test_odd_videos_are_read_as_a_player_shows_them(odd_videos, reader, name):
    path = odd_videos.folder / name
    if name == "damaged_in_the_middle.mp4":
        assert reader.read(path, max_frames_num=60, force_sample=True).num_damaged > 0
        return
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24", dst_colorspace="DEFAULT") for frame in container.decode(video=0)]
    if name == "rotated.mp4":
        expected = [np.rot90(frame, -1) for frame in expected]  # clockwise
    num_frames = odd_videos.readable[name]
    clip = reader.read(path, max_frames_num=num_frames, force_sample=True)
    assert clip.indices == list(range(num_frames))
    np.testing.assert_array_equal(clip.frames, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unreadable_videos_are_named_with_the_reason(odd_videos, reader, backend):
    """The process goes on after each of them, without a file left open or a thread left running."""
    good = odd_videos.folder / "one_frame.mp4"
    options = {"max_frames_num": 60, "fps": 1000, "backend": backend}
    reader.read(good, **options)
    [process] = reader._idle
    before = num_kept(process)
    for name, reason in odd_videos.unreadable.items():
        path = odd_videos.folder / name
        with pytest.raises(VideoReadError, match=reason) as caught:
            reader.read(path, **({} if path.is_dir() else options))
        assert caught.value.path == str(path)
        assert "\n" not in caught.value.reason
        assert reader._idle == [process], name
    assert num_kept(process) == before
    assert len(reader.read(good, **options).frames) == 1


def num_kept(process):
    """Number of open files and of threads of a process."""
    folder = Path(f"/proc/{process.pid}")
    return [len(list(folder.glob(kind))) for kind in ("fd/*", "task/*")] if folder.exists() else None


def test_a_clip_comes_back_as_it_was_read(odd_videos, reader):
    path = odd_videos.folder / "ten_bit.mp4"
    here, apart = read_video(path, 7, fps=8), reader.read(path, max_frames_num=7, fps=8)
    np.testing.assert_array_equal(apart.frames, here.frames)
    assert vars(apart) | {"frames": None} == vars(here) | {"frames": None}
    apart.frames[0] = 0  # the pixels are the caller's own


@cache
def resizing_reader(keep_aspect):
    processor = VisionImageProcessor(28, keep_aspect=keep_aspect)
    return processor, VideoReader(60, resizing=processor.resizing)


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_frames_resized_in_the_reading_process_make_equal_pixels(write_video, tmp_path, keep_aspect):
    path = write_video(tmp_path / "v.mp4", num_frames=12, size=(62, 34))
    processor, reader = resizing_reader(keep_aspect)
    for backend in BACKENDS:
        options = {"max_frames_num": 12, "force_sample": True, "backend": backend}
        large, small = read_video(path, **options), reader.read(path, **options)
        assert (large.frames.shape, small.frames.shape) == ((12, 34, 62, 3), (12, 28, 28, 3))
        pixels = [processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"] for clip in (large, small)]
        assert torch.equal(*pixels), backend


def test_pictures_of_a_folder_are_resized_too_and_must_be_of_one_size(tmp_path, picture):
    processor, reader = resizing_reader(keep_aspect=False)
    for index in range(3):
        Image.fromarray(picture(index, 62, 34)).save(tmp_path / f"{index}.png")
    large = read_frame_folder(tmp_path)
    small = reader.read(tmp_path)
    assert small.frames.shape == (3, 28, 28, 3)
    pixels = [processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"] for clip in (large, small)]
    assert torch.equal(*pixels)
    Image.fromarray(picture(3, 62, 30)).save(tmp_path / "3.png")
    with pytest.raises(VideoReadError, match="the pictures differ in size"):
        reader.read(tmp_path)


ASTRAY = {
    "crash.mp4": "the decoder crashed with SIGSEGV",
    "exit.mp4": "the decoder ended the reading process with status 3",
    "confusing.mp4": "the reader failed with IndexError: list index out of range",
    "greedy.mp4": "reading takes more than 0.5 GB of memory: raise decode_memory_gb if the machine has it",
}


def test_a_process_is_replaced_after_a_video_that_leads_it_astray(odd_videos, misbehave):
    begun, reader, good = misbehave(), VideoReader(60, memory_gb=0.5), "one_frame.mp4"
    for name, reason in ASTRAY.items():
        with pytest.raises(VideoReadError, match=re.escape(f"{name}: {reason}")) as caught:
            reader.read(odd_videos.folder / name)
        assert caught.value.path == str(odd_videos.folder / name)
    reader.read(odd_videos.folder / good)
    names, processes = zip(*begun(), strict=True)
    assert names == (*ASTRAY, good)
    assert len(set(processes)) == len(names)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux")
@pytest.mark.parametrize(
    ("memory_gb", "num_padding", "reason"),
    [
        (0.2, 10**7, "reading takes more than 0.2 GB of memory"),
        (0.2, 8, r"damaged: it lists 10000000 frames and has \d{4} bytes"),
        (1, 8, "no frame can be decoded"),
    ],
)
def test_memory_that_does_not_hold_the_list_of_frames_is_named(write_video, tmp_path, memory_gb, num_padding, reason):
    """FFmpeg says nothing. 10 million frames of 24 bytes and their times: of one size, in one chunk, equally long."""
    path = write_video(tmp_path / "many.mp4", num_frames=2)
    data = bytearray(path.read_bytes())
    for box, place, numbers in ((b"stsz", 4, (1, 10**7)), (b"stsc", 12, (10**7,)), (b"stts", 8, (10**7,))):
        struct.pack_into(f">{len(numbers)}I", data, data.rindex(box) + 4 + place, *numbers)
    path.write_bytes(data + struct.pack(">I4s", num_padding, b"free"))
    os.truncate(path, len(data) + num_padding)
    with pytest.raises(VideoReadError, match=f"many.mp4: {reason}"):
        read_video_apart(path, 600, memory_gb)


def test_a_video_is_not_blamed_for_what_an_earlier_one_left_behind(odd_videos, misbehave, tmp_path):
    begun, reader = misbehave(), VideoReader(60)
    (tmp_path / "delicate.mp4").write_bytes((odd_videos.folder / "one_frame.mp4").read_bytes())
    reader.read(odd_videos.folder / "one_frame.mp4")
    assert len(reader.read(tmp_path / "delicate.mp4").frames) == 1
    names, processes = zip(*begun(), strict=True)
    assert names == ("one_frame.mp4", "delicate.mp4", "delicate.mp4")
    assert processes[0] == processes[1] != processes[2]


def test_a_relative_path_starts_at_the_working_directory(odd_videos, monkeypatch):
    monkeypatch.chdir(odd_videos.folder)
    assert len(read_video_apart("one_frame.mp4", 600).frames) == 1


def test_a_process_that_grows_is_replaced(odd_videos, misbehave):
    begun, reader = misbehave(grows=True), VideoReader(60)
    for _ in range(2):
        reader.read(odd_videos.folder / "one_frame.mp4")
    assert len({process for _, process in begun()}) == 2


@pytest.mark.usefixtures("new_reading_processes")
def test_a_process_that_died_while_it_waited_is_replaced(odd_videos, misbehave):
    begun, reader = misbehave(), VideoReader(60)
    reader.read(odd_videos.folder / "one_frame.mp4")
    process = int(begun()[0][1])
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    reader.read(odd_videos.folder / "one_frame.mp4")
    assert len({process for _, process in begun()}) == 2


def test_a_stopped_process_is_given_up_by_whoever_waits_for_it(misbehave):
    begun = misbehave()
    started = time.monotonic()
    with pytest.raises(VideoReadError, match=r"stopped\.mp4: reading took longer than 0\.5 s"):
        read_video_apart("stopped.mp4", 0.5)
    assert time.monotonic() - started >= 0.5
    for _, process in begun():  # none where the machine was too busy for it to begin
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_a_video_whose_process_is_killed_is_read_once_more(odd_videos, misbehave, tmp_path):
    begun = misbehave()
    path = tmp_path / "once killed.mp4"
    path.write_bytes((odd_videos.folder / "one_frame.mp4").read_bytes())
    assert len(read_video_apart(path, 60).frames) == 1
    assert [name for name, _ in begun()] == [path.name] * 2


def test_a_process_killed_twice_is_no_fault_of_the_video(misbehave):
    begun = misbehave()
    with pytest.raises(ReadingProcessError, match=r"read killed\.mp4 was killed twice.*out of memory"):
        read_video_apart("killed.mp4", 60)
    assert [name for name, _ in begun()] == ["killed.mp4"] * 2


def test_the_second_reading_after_a_kill_is_alone():
    turns, order, inside = _Turns(), [], threading.Event()

    def work_alone():
        with turns.alone():
            order.append("alone")

    def work_with_others():
        with turns.with_others():
            order.append("with others")

    with turns.with_others(), turns.with_others():
        threads = [threading.Thread(target=work_alone)]
        threads[0].start()
        while not turns._is_one_alone:
            inside.wait(0.001)
        threads.append(threading.Thread(target=work_with_others))
        threads[1].start()
        assert order == []  # one waits for those that work, the other for the one
    for thread in threads:
        thread.join(60)
    assert order == ["alone", "with others"]


WRONG_OPTIONS = [
    ({"backend": "opencv"}, "backend must be one of pyav, decord, got 'opencv'"),
    ({"max_frames_num": 0}, "max_frames_num must be at least 1, got 0"),
    ({"max_frames_num": "many"}, "TypeError"),
    ({"fps": 1, "force_sample": True}, "give fps or force_sample, not both"),
    ({"nonsense": 1}, "nonsense"),
]


def test_a_wrong_option_is_no_fault_of_the_video(odd_videos, monkeypatch):
    """One process is asked for all, though a reader would replace it after each."""
    process = reading_process.ReadingProcess()
    monkeypatch.setattr("llava.video_process.ReadingProcess", lambda: process)
    monkeypatch.setattr(process, "end", lambda: None)
    for options, reason in WRONG_OPTIONS:
        with pytest.raises(ReadingProcessError, match=f"not the video's fault: .*{re.escape(reason)}"):
            read_video_apart(odd_videos.folder / "one_frame.mp4", 60, **options)
    monkeypatch.undo()
    process.end()


def test_what_cannot_be_imported_is_no_fault_of_the_video(odd_videos, misbehave):
    misbehave()
    with pytest.raises(ReadingProcessError, match=r"not the video's fault: .*no_such_package"):
        read_video_apart("import.mp4", 60)


@pytest.mark.usefixtures("new_reading_processes")
def test_a_process_that_cannot_start_is_no_fault_of_the_video(tmp_path, monkeypatch):
    (tmp_path / "av.py").write_text("raise ImportError('a broken package')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ReadingProcessError, match=r"cannot start:(.|\n)*a broken package"):
        read_video_apart("v.mp4", 60)
    monkeypatch.setattr(reading_process, "WORKER", tmp_path / "missing.py")
    with pytest.raises(ReadingProcessError, match="ended at its start, with status 2"):
        read_video_apart("v.mp4", 60)


@pytest.mark.usefixtures("new_reading_processes")
def test_the_code_is_that_of_the_parent_whatever_lies_around(odd_videos, tmp_path, monkeypatch):
    (tmp_path / "llava").mkdir()
    for name in ("__init__", "video", "reading_worker"):
        (tmp_path / "llava" / f"{name}.py").write_text("raise ImportError('this is another llava')")
    (tmp_path / "numpy.py").write_text("raise ImportError('this is no numpy')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert len(read_video_apart(odd_videos.folder / "one_frame.mp4", 60).frames) == 1
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other"), *sys.path])
    (tmp_path / "llava").rename(tmp_path / "other")
    assert len(read_video_apart(odd_videos.folder / "one_frame.mp4", 60).frames) == 1


PARENT = """
import os, sys, threading
from llava.video_process import VideoReader
reader = VideoReader(600)
threading.Thread(target=reader.read, args=["stopped.mp4"]).start()
log = {log!r}
while not open(log).read().endswith("\\n"):
    threading.Event().wait(0.01)
print(open(log).read(), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the alarm ends it")
def test_a_process_ends_with_its_parent_even_while_it_is_stopped(misbehave, tmp_path):
    misbehave()
    script = "from llava import reading_process\nfrom pathlib import Path\n"
    script += f"reading_process.WORKER = Path({str(reading_process.WORKER)!r})\n"
    script += PARENT.format(log=str(tmp_path / "notes" / "log"))
    command = [sys.executable, "-c", script]
    path = os.pathsep.join([str(reading_process.__file__).rpartition("/llava/")[0], os.environ.get("PYTHONPATH", "")])
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **pipe) as parent:
        output = parent.stdout.read()  # ends when both have ended: the reading process prints there, too
    assert "stopped.mp4" in output
    assert parent.returncode == -signal.SIGKILL


def test_nothing_heavy_is_imported_by_a_reading_process(odd_videos):
    code = "import llava.video, sys; print([m for m in ('torch', 'transformers', 'decord') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
