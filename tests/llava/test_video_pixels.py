"""Colours and orientation are those that the file means."""

import struct

import av
import numpy as np
import pytest

from llava.video import BACKENDS, read_video

LEVELS = np.arange(0, 256, 4)


def write_grey(path, codec, pixels, is_full, colorspace=2):
    """A video of one frame whose columns have the luma `LEVELS`, without colour."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1, options={"qp": "0"} if codec == "libx264" else {"q": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 32, pixels
        stream.codec_context.color_range = 2 if is_full else 1
        stream.codec_context.colorspace = colorspace
        stream.codec_context.qmin = stream.codec_context.qmax = 1
        planes = np.full((48, 128), 128, np.uint8)
        planes[:32] = np.repeat(LEVELS, 2)
        frame = av.VideoFrame.from_ndarray(planes, format=pixels)
        frame.color_range, frame.colorspace = (2 if is_full else 1), colorspace
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("colorspace", [1, 5, 9])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize(("pixels", "is_full"), [("yuvj420p", True), ("yuv420p", True), ("yuv420p", False)])
def test_grey_levels_are_those_of_the_range(tmp_path, name, pixels, is_full, colorspace, backend):
    path = write_grey(tmp_path / name, "libx264", pixels, is_full, colorspace)
    frame = read_video(path, backend=backend).frames[0]
    expected = LEVELS if is_full else np.clip((LEVELS - 16) * 255 / 219, 0, 255)
    assert np.abs(frame - np.repeat(expected, 2)[None, :, None]).max() <= 2


def test_motion_jpeg_has_the_full_range(tmp_path):
    frame = read_video(write_grey(tmp_path / "clip.avi", "mjpeg", "yuvj420p", True)).frames[0]
    assert np.abs(frame.mean(0).mean(1) - np.repeat(LEVELS, 2)).mean() < 3


MATRICES = {  # (a, b, c, d): the point (p, q) goes to (a p + c q, b p + d q), y downwards
    "as it is": ((1, 0, 0, 1), lambda pixels: pixels),
    "mirrored": ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda pixels: pixels[::-1, ::-1]),
    "a quarter clockwise": ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
    "a quarter anticlockwise": ((0, -1, 1, 0), np.rot90),
    "transposed": ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
    "transposed and turned over": ((0, -1, -1, 0), lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_are_carried_out(write_video, tmp_path, name, backend):
    (a, b, c, d), moved = MATRICES[name]
    path = write_video(tmp_path / "clip.mp4", num_frames=3)
    plain = read_video(path, 3, force_sample=True).frames
    data = path.read_bytes()
    at = data.rindex(b"tkhd") + 44
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    frames = read_video(path, 3, force_sample=True, backend=backend).frames
    expected = np.stack([moved(frame) for frame in plain])
    assert frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected).max() <= 3
