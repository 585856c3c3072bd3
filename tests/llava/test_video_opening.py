"""Files are opened as files, and only videos as videos."""

import os

import numpy as np
import pytest
from PIL import Image

from llava.video import BACKENDS, VideoReadError, read_video
from llava.video_opening import open_video

PICTURES = ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000"]
TEXTS = {
    "concat": "ffconcat version 1.0\nfile real.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nreal.mp4\n#EXT-X-ENDLIST\n",
    "terminal": "\x1b[31mred\x1b[0m text\n" * 99,
    "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n",
    "drawing": '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"></svg>',
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.fixture
def images(picture):
    return [Image.fromarray(picture(index, 64, 48)) for index in range(3)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ending", ["mp4", "mkv", "jpg", "txt"])
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_no_video_whatever_its_name(tmp_path, images, kind, ending, backend):
    path = tmp_path / f"clip.{ending}"
    images[0].save(path, format=kind)
    with pytest.raises(VideoReadError, match=r"clip\.\w+: not a video container: a picture"):
        read_video(path, backend=backend)


@pytest.mark.parametrize("kind", ["GIF", "AVIF"])
def test_a_still_picture_in_a_container_of_videos_is_no_video(tmp_path, images, kind):
    images[0].save(tmp_path / "still.mp4", format=kind)
    with pytest.raises(VideoReadError, match=r"still\.mp4: a picture, not a video"):
        read_video(tmp_path / "still.mp4")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "AVIF"])
def test_moving_pictures_are_videos(tmp_path, images, kind):
    path = tmp_path / "moving.mp4"
    images[0].save(path, format=kind, save_all=True, append_images=images[1:], duration=100)
    assert read_video(path, max_frames_num=3, force_sample=True).frames.shape == (3, 48, 64, 3)


@pytest.mark.parametrize("ending", ["mp4", "txt", "m3u8", "ffconcat"])
@pytest.mark.parametrize("kind", TEXTS)
def test_no_text_or_playlist_is_a_video_or_opens_another_file(tmp_path, write_video, kind, ending):
    write_video(tmp_path / "real.mp4", num_frames=3)
    path = tmp_path / f"list.{ending}"
    path.write_text(TEXTS[kind])
    with pytest.raises(VideoReadError, match=r"list\.\w+: (not a video container|Invalid data)"):
        read_video(path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["12:30 talk.mp4", "http:x.mp4", "concat:x.mp4", "pipe:0", "file:x.mp4", "a%03d.mp4"])
def test_names_that_look_like_addresses_are_files(tmp_path, monkeypatch, write_video, name, backend):
    write_video(tmp_path / "clip.mp4", num_frames=3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read_video(name, max_frames_num=3, force_sample=True, backend=backend).indices == [0, 1, 2]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_names_that_are_not_utf_8_work(tmp_path, write_video, as_bytes, backend):
    name = os.fsencode(write_video(tmp_path / "clip.mp4", num_frames=3))
    odd = name.replace(b"clip", b"caf\xe9")
    os.rename(name, odd)
    clip = read_video(odd if as_bytes else os.fsdecode(odd), max_frames_num=3, force_sample=True, backend=backend)
    assert np.array_equal(clip.indices, [0, 1, 2])


def test_the_message_about_a_name_that_is_not_utf_8_can_be_written_down(tmp_path):
    error = VideoReadError(os.fsdecode(b"caf\xe9.mp4"), "no such file")
    assert str(error).encode() == rb"cannot read video caf\xe9.mp4: no such file"


def test_a_playlist_that_names_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile pipe\n")
    with pytest.raises(VideoReadError, match="a playlist"), open_video(str(tmp_path / "list.mp4")):
        pass
