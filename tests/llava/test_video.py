import logging
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from llava.video import BACKENDS, VideoReadError, read_frame_folder, read_video, sample_frames

NUM_FRAMES = 60


@pytest.fixture(autouse=True)
def quiet_ffmpeg():
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    yield
    av.logging.set_level(level)


def picture(index, width, height):
    """A picture that no other index gives: moving ramps and a brightness of its own."""
    row, column = np.mgrid[:height, :width]
    channels = [column * 3 + index * 4, row * 4 + index * 2, row * 0 + index * 4]
    return (np.stack(channels, -1) % 256).astype(np.uint8)


def write_video(path, *, num_frames=NUM_FRAMES, rate=24, size=(64, 48), codec="libx264", pixels="yuv420p", **kwargs):
    """Encode `picture(i)`; further arguments: gop, b_frames, muxer, encoder options, times, noise, colorspace."""
    with av.open(str(path), "w", options=kwargs.get("muxer", {})) as container:
        stream = container.add_stream(codec, rate=rate, options=kwargs.get("encoder", {}))
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = kwargs.get("gop", 12)
        stream.codec_context.max_b_frames = kwargs.get("b_frames", 0)
        stream.codec_context.colorspace = kwargs.get("colorspace", 2)
        generator = np.random.default_rng(0)
        for index in range(num_frames):
            image = picture(index, *size)
            if kwargs.get("noise"):
                image = generator.integers(0, 256, image.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if "times" in kwargs:
                frame.pts = kwargs["times"][index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def every_frame(path):
    """All frames, decoded from first to last without seeking."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24", dst_colorspace="DEFAULT") for frame in container.decode(video=0)]


FILES = {
    "plain.mp4": {},
    "b frames.mp4": {"b_frames": 3, "gop": 24},
    "one_key_frame.mp4": {"b_frames": 2, "gop": 250},
    "open_gop.mp4": {"b_frames": 3, "encoder": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}},
    "hevc_open_gop.mp4": {"codec": "libx265", "b_frames": 3, "encoder": {"x265-params": "log-level=none"}},
    "undeclared_count.mkv": {"b_frames": 2},
    "fragmented.mp4": {"b_frames": 2, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "film.mp4": {"rate": Fraction(24000, 1001), "b_frames": 2},
    "odd_size.mp4": {"size": (63, 47), "pixels": "yuv444p"},
    "smaller_than_a_row_of_memory.mp4": {"size": (16, 16)},
    "bt709.mp4": {"colorspace": 1, "noise": True},
    "noise.mp4": {"noise": True, "size": (62, 46)},
    "variable_rate.mp4": {"times": [i * i for i in range(NUM_FRAMES)], "b_frames": 2},
    "times_of_storage.avi": {"b_frames": 2, "codec": "mpeg4"},
    "broadcast.ts": {"b_frames": 2},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "raw.h264": {},
    "ten_bit.mp4": {"pixels": "yuv420p10le"},
    "ünïcode 视频.mp4": {},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("max_frames_num", [7, NUM_FRAMES])
def test_both_backends_read_exactly_the_frames_that_decoding_everything_gives(tmp_path, name, max_frames_num):
    path = write_video(tmp_path / name, **FILES[name])
    expected = every_frame(path)
    assert len(expected) == NUM_FRAMES
    clips = [read_video(path, max_frames_num, fps=8, backend=backend) for backend in BACKENDS]
    assert clips[0].indices == clips[1].indices
    assert clips[0].times == clips[1].times
    for clip in clips:
        assert clip.frames.dtype == np.uint8
        assert clip.frames.shape == (len(clip.indices), *expected[0].shape)
        for index, frame in zip(clip.indices, clip.frames, strict=True):
            assert np.abs(frame.astype(int) - expected[index]).max() <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_show_what_was_encoded(tmp_path, backend):
    path = write_video(tmp_path / "clip.mp4", encoder={"crf": "1"}, pixels="yuv444p", b_frames=2)
    clip = read_video(path, 5, backend=backend, force_sample=True)
    assert clip.indices == [0, 14, 29, 44, 59]
    for index, frame in zip(clip.indices, clip.frames, strict=True):
        assert np.abs(frame.astype(int) - picture(index, 64, 48)).mean() < 3


def test_decord_is_used_where_it_is_exact_and_named_where_it_does_not_manage(tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise AssertionError("PyAV was used")

    path = write_video(tmp_path / "closed.mp4", b_frames=3)
    monkeypatch.setattr("llava.video_decoding._read_with_pyav", refuse)
    assert len(read_video(path).frames) == 3
    monkeypatch.undo()
    with caplog.at_level(logging.INFO):
        read_video(write_video(tmp_path / "narrow.mp4", size=(16, 16)))
    assert "decord does not manage" in caplog.text


def test_sparse_frames_are_reached_through_their_key_frames(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mkv", num_frames=500, gop=20, b_frames=2)
    decoded = []
    open_container = av.open

    class Counting:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.container.close()

        def decode(self, stream):
            for frame in self.container.decode(stream):
                decoded.append(frame.pts)
                yield frame

    monkeypatch.setattr("llava.video_decoding.av.open", lambda *a, **k: Counting(open_container(*a, **k)))
    clip = read_video(path, 4, backend="pyav", force_sample=True)
    assert clip.indices == [0, 166, 332, 499]
    assert len(decoded) <= 4 * 20


def test_rotation_is_carried_out(tmp_path):
    path = write_video(tmp_path / "upright.mp4", size=(128, 64))
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 44  # version 0 of the box
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 64 << 16, 0, 1 << 30)
    rotated = tmp_path / "rotated.mp4"
    rotated.write_bytes(data)
    expected = np.rot90(every_frame(path)[24], -1)  # a quarter turn clockwise
    for backend in BACKENDS:
        clip = read_video(rotated, 3, backend=backend)
        assert clip.frames.shape == (3, 128, 64, 3)
        np.testing.assert_allclose(clip.frames[1].astype(int), expected, atol=1)


@pytest.mark.parametrize(
    ("num_frames", "rate", "limit", "indices", "times"),
    [
        (75, 25.0, 64, [0, 25, 50], [0.0, 1.0, 2.0]),
        (90, 29.97, 64, [0, 30, 60], [0.0, 1.0, 2.0]),  # nominal seconds
        (100, 25.0, 3, [0, 49, 99], [0.0, 1.96, 3.96]),  # 49.5 is cut down
        (75, 25.0, 3, [0, 25, 50], [0.0, 1.0, 2.0]),  # just at the limit
        (1, 25.0, 64, [0], [0.0]),
        (3, 0.25, 64, [0, 1, 2], [0.0, 4.0, 8.0]),  # one frame in four seconds
    ],
)
def test_sampling_takes_one_frame_a_second_or_spreads_evenly(num_frames, rate, limit, indices, times):
    chosen, at = sample_frames(num_frames, rate, limit)
    assert chosen == indices
    assert at == pytest.approx(times)


def test_forced_sampling_repeats_frames_of_short_videos():
    assert sample_frames(3, 10.0, 5, force_sample=True) == ([0, 0, 1, 1, 2], [0.0, 0.0, 0.1, 0.1, 0.2])
    assert sample_frames(40, 10.0, 8, fps=2)[1] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])


def test_duration_is_that_of_the_whole_video(tmp_path):
    assert read_video(write_video(tmp_path / "clip.mp4"), 1).duration == pytest.approx(2.5)


def truncated(path, fraction, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / f"cut{fraction}{path.suffix}"
    cut.write_bytes(data[: int(len(data) * fraction)])
    return cut


def only_audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


UNREADABLE = {
    "no such file": lambda folder: folder / "missing.mp4",
    "is a directory": lambda folder: folder,
    "(End of file|Invalid data)": lambda folder: (folder / "empty.mp4").touch() or folder / "empty.mp4",
    "Invalid data found": lambda folder: (folder / "x.mp4").write_text("text" * 999) and folder / "x.mp4",
    "no video stream": lambda folder: only_audio(folder / "sound.mp4"),
    "Invalid data": lambda folder: truncated(write_video(folder / "index_last.mp4"), 0.6, folder),
    "truncated: packet": lambda folder: truncated(
        write_video(folder / "index_first.mp4", muxer={"movflags": "faststart"}), 0.6, folder
    ),
    "truncated: the last 1.* s of video": lambda folder: truncated(write_video(folder / "clip.mkv"), 0.4, folder),
    "no frames": lambda folder: truncated(
        write_video(folder / "header.mkv", size=(320, 240), noise=True), 0.0005, folder
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reason", UNREADABLE)
def test_unreadable_files_are_named_with_the_reason(tmp_path, reason, backend):
    path = UNREADABLE[reason](tmp_path)
    with pytest.raises(VideoReadError, match=reason) as caught:
        read_video(path, backend=backend)
    assert caught.value.path == str(path)
    assert caught.value.reason in str(caught.value)
    assert "\n" not in caught.value.reason


def test_options_out_of_range_are_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4", num_frames=3)
    with pytest.raises(ValueError, match="backend must be one of decord, pyav, got 'opencv'"):
        read_video(path, backend="opencv")
    with pytest.raises(ValueError, match="max_frames_num must be at least 1, got 0"):
        read_video(path, max_frames_num=0)
    with pytest.raises(ValueError, match="fps must be above 0, got 0"):
        read_video(path, fps=0)


def test_a_folder_of_pictures_is_a_video_in_the_order_of_their_names(tmp_path):
    for index in (2, 0, 1, 3):
        Image.fromarray(picture(index, 8, 6)).save(tmp_path / f"{index:05}.png")
    (tmp_path / "notes.txt").touch()
    clip = read_frame_folder(tmp_path)
    assert clip.indices == [0, 1, 2, 3]
    assert clip.times == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert clip.duration == pytest.approx(4 / 3)
    np.testing.assert_array_equal(clip.frames, [picture(index, 8, 6) for index in range(4)])
    assert read_frame_folder(tmp_path, 2).indices == [0, 3]


def test_a_folder_without_readable_pictures_is_an_unreadable_video(tmp_path):
    with pytest.raises(VideoReadError, match="holds no JPEG or PNG files"):
        read_frame_folder(tmp_path)
    (tmp_path / "0.png").write_text("text")
    with pytest.raises(VideoReadError, match="cannot identify image file"):
        read_frame_folder(tmp_path)
    for index, size in enumerate([(4, 4), (5, 4)]):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
    with pytest.raises(VideoReadError, match="differ in size"):
        read_frame_folder(tmp_path)
