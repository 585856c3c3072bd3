"""Files that were cut off are told from whole ones, also where these declare odd things."""

import struct

import av
import numpy as np
import pytest

from llava.video import VideoReadError, read_video

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def boxes(data):
    """Kind, start and end of the boxes at the top of an MP4 file."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, at + size
        at += size


@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm", "clip.mp4", "fast.mp4"])
def test_a_file_cut_anywhere_is_truncated(write_video, tmp_path, name):
    muxer = {"movflags": "faststart"} if name == "fast.mp4" else {}
    path = write_video(tmp_path / name, codec="libvpx" if name.endswith("webm") else "libx264", muxer=muxer)
    data = path.read_bytes()
    for kept in (0.3, 0.6, 0.95, 0.999):
        path.write_bytes(data[: int(len(data) * kept)].replace(b"DURATION", b"DURATIOX"))
        with pytest.raises(VideoReadError, match="truncated"):
            read_video(path)


@pytest.mark.parametrize("tag", [b"DURATION", b"DURATIOX"])
def test_a_matroska_file_of_unknown_size_that_ends_early_is_truncated(write_video, tmp_path, tag):
    path = write_video(tmp_path / "clip.mkv")
    data = path.read_bytes().replace(b"DURATION", tag)
    at = data.index(b"\x18S\x80g") + 4
    data = data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]
    path.write_bytes(data)
    assert read_video(path).duration == pytest.approx(2.5, abs=0.01)
    with av.open(str(path)) as container:
        cut = [packet.pos for packet in container.demux(video=0) if packet.size][40]
    path.write_bytes(data[:cut])
    with pytest.raises(VideoReadError, match=r"truncated: the last 0\.8 s"):
        read_video(path)


@pytest.mark.parametrize("is_live", [False, True])
@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "libx264"), ("clip.webm", "libvpx-vp9")])
def test_a_matroska_file_with_a_hole_is_truncated(write_video, tmp_path, name, codec, is_live):
    path = write_video(tmp_path / name, codec=codec, noise=True, muxer={"live": "1"} if is_live else {})
    data = path.read_bytes()
    assert read_video(path).duration == pytest.approx(2.5, abs=0.1)
    for start in (0.2, 0.5, 0.8):
        first, length = int(len(data) * start), len(data) // 8
        path.write_bytes(data[:first] + bytes(length) + data[first + length :])
        with pytest.raises(VideoReadError, match="truncated: a hole at byte"):
            read_video(path)


def test_what_follows_a_matroska_segment_does_not_matter(write_video, tmp_path):
    path = write_video(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert read_video(path, 60, force_sample=True).indices == list(range(60))


def test_a_fragmented_file_cut_at_a_fragment_is_truncated(write_video, tmp_path):
    path = write_video(tmp_path / "clip.mp4", muxer=FRAGMENTS)
    data = path.read_bytes()
    assert read_video(path).duration == pytest.approx(2.5)
    cuts = [start for kind, start, _ in boxes(data) if kind == b"moof"][1:]
    cuts.append(next(start for kind, start, _ in boxes(data) if kind == b"mfra"))
    for cut in cuts:
        path.write_bytes(data[:cut])
        with pytest.raises(VideoReadError, match="truncated: the index at the end"):
            read_video(path)


def test_a_fragmented_file_without_a_fragment_in_the_middle_is_truncated(write_video, tmp_path):
    path = write_video(tmp_path / "clip.mp4", muxer=FRAGMENTS)
    data = path.read_bytes()
    places = list(boxes(data))
    second = [number for number, (kind, *_) in enumerate(places) if kind == b"moof"][1]
    path.write_bytes(data[: places[second][1]] + data[places[second + 1][2] :])
    with pytest.raises(VideoReadError, match="a fragment after fragment 1 is missing"):
        read_video(path)


def test_samples_without_data_are_missing_frames(write_video, tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    data = path.read_bytes()
    at = data.rindex(b"stsz") + 16
    path.write_bytes(data[: at + 4 * 50] + bytes(40) + data[at + 4 * 60 :])  # the last 10 of 60
    with pytest.raises(VideoReadError, match="truncated"):
        read_video(path)


def test_sound_may_be_longer_than_the_video(tmp_path):
    for name in ("clip.mp4", "clip.mkv"):
        with av.open(str(tmp_path / name), "w") as container:
            video = container.add_stream("libx264", rate=24)
            sound = container.add_stream("aac", rate=24000, layout="mono")
            for index in range(96):
                samples = np.zeros((1, 1000), np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate = 24000
                container.mux(sound.encode(frame))
                if index < 24:
                    image = np.full((48, 64, 3), index, np.uint8)
                    container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            for stream in container.streams:
                container.mux(stream.encode())
        assert read_video(tmp_path / name).duration == pytest.approx(1, abs=0.05)


def test_an_avi_header_may_count_one_frame_too_many(write_video, tmp_path):
    path = write_video(tmp_path / "clip.avi", codec="mpeg4")
    data = path.read_bytes()
    for place in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data = data[:place] + struct.pack("<I", 61) + data[place + 4 :]
    path.write_bytes(data)
    clip = read_video(path, 60, force_sample=True)
    assert clip.indices == list(range(60))


@pytest.mark.parametrize("name", ["clip.asf", "clip.flv", "clip.ts", "clip.mpg", "clip.mkv", "fragments.mp4"])
def test_whole_files_without_a_count_are_read(write_video, tmp_path, name):
    codec = {"clip.asf": "wmv2", "clip.mpg": "mpeg2video", "clip.flv": "flv"}.get(name, "libx264")
    muxer = FRAGMENTS if name == "fragments.mp4" else {}
    clip = read_video(write_video(tmp_path / name, codec=codec, muxer=muxer), 60, force_sample=True)
    assert clip.indices == list(range(60))
    assert np.diff(clip.times) == pytest.approx(np.full(59, 1 / 24), abs=0.0011)
    assert clip.duration - clip.times[0] == pytest.approx(2.5, abs=0.01)
