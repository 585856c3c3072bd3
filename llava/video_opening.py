"""Opening of a video file: as a file, whatever its name looks like, and only if it is a video.

FFmpeg accepts many files that are not videos: pictures, text drawn on a terminal, and playlists that name other files
or addresses. We open only containers of video, and never follow a file to another one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer

CONTAINERS = (
    *("mov", "matroska", "avi", "asf", "asf_o", "flv", "kux", "mpeg", "mpegts", "ogg", "rm", "ivr", "nut", "mxf"),
    *("dv", "wtv", "nsv", "nuv", "swf", "pva", "ty", "lxf", "mlv", "cine", "amv", "bink", "smk", "flic", "roq", "gxf"),
    *("h261", "h263", "h264", "hevc", "vvc", "evc", "m4v", "mpegvideo", "vc1", "vc1test", "av1", "obu", "ivf", "dirac"),
    *("cavsvideo", "avs2", "avs3", "mjpeg", "mpjpeg", "smjpeg", "mjpeg_2000", "yuv4mpegpipe", "dnxhd", "ingenient"),
    *("dhav", "ifv", "iv8", "luodat", "hnm", "vivo", "mvi", "gif", "apng", "jpegxl_anim"),
)
"""Names of FFmpeg's demuxers of video. Pictures, text, subtitles, sound, devices and playlists are not among them."""

_PICTURE_BRANDS = {"avif", "heic", "heix", "heim", "heis", "mif1", "mif2", "miaf", "j2ki", "jpeg"}
"""Brands of ISO/IEC 23008-12 files whose main content is a still picture, though they are built like MP4."""

_OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
DECODER_THREADS = 4  # per file; more costs memory and hardly gains speed


class VideoReadError(Exception):
    """Error for a file whose frames cannot be read.

    Attributes:
        path: The file.
        reason: The problem, in one line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read video {printable(path)}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoReadError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


def printable(path: str) -> str:
    """Return the path as text that can be written anywhere; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def open_video(path: str, num_threads: int = DECODER_THREADS) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open the file and the stream that a player would show while the block runs.

    Args:
        path: The file.
        num_threads: Number of threads of the decoder, at least 1.

    Raises:
        VideoReadError: If the file is a picture, a text or a playlist, there is no video stream, or no decoder for it.
        av.FFmpegError: If the file is not a media file, or is damaged.
    """
    with _open_container(path) as container:
        stream = _shown_stream(container)
        if stream is None:
            raise VideoReadError(path, "no video stream")
        if stream.codec_context is None:
            raise VideoReadError(path, "no decoder for the video stream")
        is_still = container.format.name == "gif" and stream.frames == 1
        if is_still or container.metadata.get("major_brand") in _PICTURE_BRANDS:
            raise VideoReadError(path, "a picture, not a video")
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        try:
            yield container, stream
        finally:
            # PyAV frees a decoder while it holds Python's lock, and with av.logging switched on the decoder's threads
            # need that lock before they can end. Flushing lets them finish without it.
            stream.codec_context.flush_buffers()


def _shown_stream(container: InputContainer) -> av.VideoStream | None:
    """Find the default video stream, or else the best one; album covers are pictures."""
    cover = av.stream.Disposition.attached_pic
    best = container.streams.best("video")
    if isinstance(best, av.VideoStream) and not best.disposition & cover:
        return best
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def _open_container(path: str) -> InputContainer:
    """Open a container of video, but no file that it names.

    Raises:
        VideoReadError: If FFmpeg detects another kind of file.
        av.FFmpegError: If it is not a media file, or is damaged.
    """
    try:
        # Tags that are not text do not matter here.
        return av.open(f"file:{path}", container_options=_OPTIONS, metadata_errors="ignore")
    except av.error.ValueError as error:  # FFmpeg's error for formats that are not allowed
        reason = "not a video container: a picture, a text, a playlist, or a file that is damaged at its start"
        raise VideoReadError(path, reason) from error
