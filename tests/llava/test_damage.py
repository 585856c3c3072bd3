"""Damaged videos are read as a player shows them, and said to be damaged."""

import errno
import random
from types import SimpleNamespace

import av
import numpy as np
import pytest

from llava.decoded_frames import DecodedFrames
from llava.video import BACKENDS, read_video

OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}
FILES = {
    "clip.mp4": {"gop": 60},
    "clip.mkv": {"gop": 60},
    "b frames.mp4": {"b_frames": 2},
    "open_gop.mp4": {"b_frames": 3, "encoder": OPEN},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.ts": {"codec": "mpeg2video"},
}


def flipped(path, seed):
    """The file with ten bits flipped in its pictures."""
    generator = random.Random(seed)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size > 60]
    for _ in range(10):
        start, size = generator.choice(places)
        data[start + generator.randrange(40, size)] ^= 1 << generator.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FILES)
def test_wrong_frames_are_signed_and_intact_files_are_not(write_video, tmp_path, name, backend):
    """A flipped bit may also give another valid picture, and frames that no other depends on are not decoded."""
    path = write_video(tmp_path / name, size=(160, 96), **FILES[name])
    intact = read_video(path, 7, force_sample=True, backend=backend)
    assert intact.num_damaged == 0
    wrong = unsigned = 0
    contents = [flipped(path, seed) for seed in range(10)]
    for content in contents:
        path.write_bytes(content)
        clip = read_video(path, 7, force_sample=True, backend=backend)
        is_wrong = clip.frames.shape != intact.frames.shape or np.abs(clip.frames.astype(int) - intact.frames).max() > 3
        wrong += is_wrong
        unsigned += is_wrong and not clip.num_damaged
    assert wrong > 5
    assert unsigned <= (4 if "b_frames" in FILES[name] else 1)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_frame_that_damage_swallows_is_replaced_by_the_one_before_it(write_video, tmp_path, codec):
    encoder = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = write_video(tmp_path / "clip.mp4", codec=codec, encoder=encoder, gop=60)
    intact = read_video(path, 60, force_sample=True).frames
    with av.open(str(path)) as container:
        packet = [one for one in container.demux(video=0) if one.size][-1]
        start, end = packet.pos, packet.pos + packet.size
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    clip = read_video(path, 60, force_sample=True)
    assert clip.num_damaged > 0
    np.testing.assert_array_equal(clip.frames[:59], intact[:59])
    np.testing.assert_array_equal(clip.frames[59], intact[58])


def test_a_lack_of_memory_is_not_damage():
    def decode(packet):
        raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    decoded = DecodedFrames()
    with pytest.raises(MemoryError):
        list(decoded.take_in(SimpleNamespace(decode=decode), None))
    assert decoded.num_signs == 0
