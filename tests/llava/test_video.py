import logging
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from llava.video import BACKENDS, VideoReadError, read_frame_folder, read_video, sampled_indices

NUM_FRAMES = 60


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
def test_both_backends_read_exactly_the_frames_that_decoding_everything_gives(write_video, tmp_path, name):
    path = write_video(tmp_path / name, **FILES[name])
    expected = np.stack(every_frame(path)).astype(int)
    assert len(expected) == NUM_FRAMES
    for max_frames_num in (7, NUM_FRAMES):
        clips = [read_video(path, max_frames_num, fps=8, backend=backend) for backend in BACKENDS]
        assert clips[0].indices == clips[1].indices
        assert clips[0].times == clips[1].times
        for clip in clips:
            assert clip.frames.dtype == np.uint8
            np.testing.assert_allclose(clip.frames.astype(int), expected[clip.indices], atol=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_show_what_was_encoded(write_video, picture, tmp_path, backend):
    path = write_video(tmp_path / "clip.mp4", encoder={"crf": "1"}, pixels="yuv444p", b_frames=2)
    clip = read_video(path, 5, backend=backend, force_sample=True)
    assert clip.indices == [0, 14, 29, 44, 59]
    for index, frame in zip(clip.indices, clip.frames, strict=True):
        assert np.abs(frame.astype(int) - picture(index, 64, 48)).mean() < 3


def test_decord_is_used_where_it_is_exact_and_named_where_it_does_not_manage(
    write_video, tmp_path, monkeypatch, caplog
):
    path = write_video(tmp_path / "closed.mp4", b_frames=3)
    plain = read_video(path).frames
    are_same = "llava.video_decoding._are_same"
    monkeypatch.setattr(are_same, lambda pixels, _: pixels.fill(7) is None)
    assert (read_video(path, backend="decord").frames == 7).all()
    monkeypatch.setattr(are_same, lambda *_: False)
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(read_video(path, backend="decord").frames, plain)
        assert "PyAV reads it: its frame 0 is another one" in caplog.text
        monkeypatch.undo()
        caplog.clear()
        read_video(path, backend="decord")
        assert "PyAV reads it" not in caplog.text
        read_video(write_video(tmp_path / "narrow.mp4", size=(16, 16)), backend="decord")
    assert "decord cannot read" in caplog.text


@pytest.mark.parametrize(
    ("codec", "encoder"),
    [
        ("libx264", {"x264-params": "scenecut=0"}),
        ("libx265", {"x265-params": "scenecut=0:open-gop=0:log-level=none"}),
        ("libx265", {"x265-params": "scenecut=0:open-gop=0:log-level=none:temporal-layers=2"}),
        ("libx264", {"x264-params": "scenecut=0:open-gop=1"}),
    ],
)
def test_only_frames_are_decoded_on_which_a_sampled_one_may_depend(write_video, tmp_path, codec, encoder):
    path = write_video(tmp_path / "long.mp4", num_frames=250, gop=50, b_frames=3, codec=codec, encoder=encoder)
    clip = read_video(path, 5, backend="pyav", force_sample=True)
    assert clip.indices == [0, 62, 124, 186, 249]
    frames = every_frame(path)
    np.testing.assert_array_equal(clip.frames, [frames[index] for index in clip.indices])
    assert clip.num_decoded == decoded_for(path, clip.indices)


def decoded_for(path, indices):
    """Frames from each key frame before `indices` to the last of them that follows it, in the order of decoding.

    Frames that are marked as no reference count only if they are sampled, where the mark can be relied on: in H.264
    (nal_ref_idc), and in HEVC with one temporal sub-layer (even types of NAL units below 16).
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        hevc = stream.codec_context.name == "hevc"
        one_layer = hevc and stream.codec_context.extradata[21] >> 3 & 7 == 1
        packets = [packet for packet in container.demux(stream) if packet.size]
        pictures = []
        for packet in packets:
            data, units = bytes(packet), []
            while data:  # 4 bytes of length, then a unit
                units.append(data[4])
                data = data[4 + int.from_bytes(data[:4]) :]
            if hevc:
                kind = next(unit >> 1 & 63 for unit in units if unit >> 1 & 63 < 32)
                pictures.append(not one_layer or kind % 2 == 1 or kind >= 16)
            else:
                pictures.append(next(unit >> 5 & 3 for unit in units if unit & 31 in (1, 5)) > 0)
    times = sorted(packet.pts for packet in packets)
    needed = set()
    for time in (times[index] for index in indices):
        last = next(place for place, packet in enumerate(packets) if packet.pts == time)
        first = max(place for place, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= time)
        needed |= {place for place in range(first, last + 1) if pictures[place] or place == last}
    return len(needed)


def test_threads_of_the_decoder_end_while_messages_are_logged(write_video, tmp_path):
    """They need Python's lock for every message; whoever frees the decoder must not hold it and wait for them."""
    path = write_video(tmp_path / "clip.h264")
    code = f"""
import av
from llava.video import read_video
av.logging.set_level(av.logging.PANIC)
for _ in range(100):
    read_video({str(path)!r}, 1, backend="pyav")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=1200)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rotation_is_carried_out(odd_videos, backend):
    path = odd_videos.folder / "rotated.mp4"
    clip = read_video(path, 3, backend=backend)
    assert clip.frames.shape == (3, 64, 48, 3)
    expected = np.rot90(every_frame(path)[24], -1)  # a quarter turn clockwise
    np.testing.assert_allclose(clip.frames[1].astype(int), expected, atol=1)


def test_frames_follow_llava_video_or_the_rate_that_is_given(write_video, tmp_path):
    path = write_video(tmp_path / "clip.mp4")  # 2.5 s
    assert read_video(path).indices == [0, 24, 48]
    clip = read_video(path, fps=1)
    assert clip.indices == [0, 24, 48, 59]
    assert clip.times == pytest.approx([0, 1, 2, 59 / 24])
    assert read_video(path, 3, fps=1).indices == [0, 29, 59]


def test_duration_is_that_of_the_whole_video(write_video, tmp_path):
    assert read_video(write_video(tmp_path / "clip.mp4"), 1).duration == pytest.approx(2.5)


@pytest.fixture(scope="module")
def long_matroska(write_video, tmp_path_factory):
    """Bytes of a file of 1.3 MB."""
    path = tmp_path_factory.mktemp("matroska") / "clip.mkv"
    return write_video(path, size=(320, 240), noise=True, num_frames=30, encoder={"preset": "ultrafast"}).read_bytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kept", "reason"), [(0.4, "truncated: the last {} bytes are missing"), (0.0005, "truncated")])
def test_a_matroska_file_that_ends_early_is_noticed(long_matroska, tmp_path, kept, reason, backend):
    path = tmp_path / "clip.mkv"
    path.write_bytes(long_matroska[: int(len(long_matroska) * kept)])
    reason = reason.format(len(long_matroska) - path.stat().st_size)
    with pytest.raises(VideoReadError, match=reason) as caught:
        read_video(path, backend=backend)
    assert caught.value.path == str(path)
    assert caught.value.reason in str(caught.value)


def test_options_out_of_range_are_refused(write_video, tmp_path):
    path = write_video(tmp_path / "clip.mp4", num_frames=3)
    with pytest.raises(ValueError, match="backend must be one of pyav, decord, got 'opencv'"):
        read_video(path, backend="opencv")
    with pytest.raises(ValueError, match="max_frames_num must be at least 1, got 0"):
        read_video(path, max_frames_num=0)
    with pytest.raises(ValueError, match="fps must be above 0, got 0"):
        read_video(path, fps=0)
    with pytest.raises(ValueError, match="give fps or force_sample, not both"):
        read_video(path, fps=1, force_sample=True)


def test_a_folder_of_pictures_is_a_video_in_the_order_of_their_names(picture, tmp_path):
    for index in (2, 0, 1, 3):
        Image.fromarray(picture(index, 8, 6)).save(tmp_path / f"{index:05}.png")
    (tmp_path / "notes.txt").touch()
    clip = read_frame_folder(tmp_path)
    assert clip.indices == [0, 1, 2, 3]
    assert clip.times == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert clip.duration == pytest.approx(4 / 3)
    np.testing.assert_array_equal(clip.frames, [picture(index, 8, 6) for index in range(4)])
    assert read_frame_folder(tmp_path, 2).indices == [0, 3]
    assert read_frame_folder(tmp_path, fps=1.5).indices == [0, 2, 3]


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


def test_a_file_cut_by_an_edit_list_is_sought_in(write_video, tmp_path):
    """As stream copies are: it begins inside a group of pictures, and what comes before is not shown."""
    path = write_video(tmp_path / "cut.mp4", num_frames=500, gop=50, b_frames=3, encoder={"x264-params": "scenecut=0"})
    frames, data = every_frame(path), path.read_bytes()
    at = data.rindex(b"elst") + 12  # duration in ms, then the time in the media at 12288 ticks a second
    start = int.from_bytes(data[at + 4 : at + 8], "big") + 130 * 512
    path.write_bytes(data[:at] + (15000).to_bytes(4, "big") + start.to_bytes(4, "big") + data[at + 8 :])
    clip = read_video(path, 5, force_sample=True)
    assert clip.indices == [0, 89, 179, 269, 359]
    assert clip.times == pytest.approx([index / 24 for index in clip.indices])
    assert clip.duration == pytest.approx(15)
    np.testing.assert_array_equal(clip.frames, [frames[130 + index] for index in clip.indices])
    assert clip.num_decoded < 200


@pytest.mark.parametrize("options", [{}, {"fps": 2.0}, {"force_sample": True}, {"sampling": "time"}])
def test_frames_are_chosen_without_decoding_as_they_are_read(tmp_path, write_video, options):
    path = write_video(tmp_path / "clip.mp4", num_frames=50, rate=6)
    assert sampled_indices(path, 7, **options) == read_video(path, 7, **options).indices


@pytest.mark.parametrize("options", [{}, {"fps": 2.0}, {"force_sample": True}, {"sampling": "nearest"}])
def test_pictures_are_chosen_as_they_are_read(tmp_path, options):
    for number in range(9):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    assert sampled_indices(tmp_path, 4, **options) == read_frame_folder(tmp_path, 4, **options).indices


def test_frames_of_no_video_cannot_be_chosen(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    for name, reason in (("clip.mp4", "cannot read video"), ("none.mp4", "no such file")):
        with pytest.raises(VideoReadError, match=reason):
            sampled_indices(tmp_path / name)
