"""VideoReader: reading of videos in separate processes, so that no file can block or crash the main process.

Decoders are C code: a thread that hangs or crashes in them cannot be stopped on its own. A process that has read a
video without problems also reads the next one, since starting a process takes longer than reading a short clip.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike, fsdecode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llava.frame_list import FrameList
from llava.frame_resizing import FrameResizing
from llava.reading_process import ProcessEndedError, ReadingProcess, ReadingProcessError
from llava.video import VideoClip, VideoReadError

__all__ = ["DEFAULT_MEMORY_GB", "ReadingProcessError", "VideoReader", "read_video_apart"]

logger = logging.getLogger(__name__)

DEFAULT_MEMORY_GB = 4.0


class VideoReader:
    """A pool of reading processes, which reads any number of videos at a time, each in a free process.

    A process is replaced after a video that took too long or too much memory, or that crashed it, made it grow or led
    the reader astray. After one that a reader finds damaged or missing it goes on.
    If a process is killed from outside, as the system does when memory runs out, its video is read once more, alone.

    Args:
        timeout_s: Timeout per video in seconds, above 0; starting a process does not count.
        memory_gb: Limit on the address space for reading a video, in gigabytes (10^9 bytes), above 0.
        resizing: Resizing of frames before they leave the process; None keeps their size.
    """

    def __init__(
        self, timeout_s: float, memory_gb: float = DEFAULT_MEMORY_GB, resizing: FrameResizing | None = None
    ) -> None:
        self._timeout_s, self._memory_gb, self._resizing = timeout_s, memory_gb, resizing
        self._idle: list[ReadingProcess] = []
        self._turns = _Turns()
        weakref.finalize(self, _end_all, self._idle)

    def read(self, path: str | PathLike[str], **options: Any) -> VideoClip:
        """Read a video file, or a folder of pictures.

        Args:
            path: The file or folder.
            options: Arguments of `read_video`, or of `read_frame_folder` if `path` is a folder.

        Raises:
            VideoReadError: If the video cannot be read, takes too long or too much memory, or the decoder crashes.
            ReadingProcessError: If the video is not at fault: an option is wrong, an import fails, or the system kills
                the process although it reads alone.
        """
        frames, answer = self._ask(fsdecode(path), options)
        return VideoClip(frames=frames, **answer["clip"])

    def list_frames(self, path: str | PathLike[str]) -> FrameList:
        """Count the frames of a video file, or of a folder of pictures, without decoding them.

        Raises:
            VideoReadError: If the video cannot be read, or takes too long or too much memory.
            ReadingProcessError: If the video is not at fault.
        """
        _, answer = self._ask(fsdecode(path), None)
        return FrameList(**answer["listed"])

    def _ask(self, name: str, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        """Return the frames of a video and the answer of the process; without options the list of its frames."""
        try:
            with self._turns.with_others():
                return self._read(name, options)
        except ProcessEndedError as end:
            logger.warning("the process that read %s was killed (%s): it is read once more, alone", name, end)
        with self._turns.alone():
            self.close()
            try:
                return self._read(name, options)
            except ProcessEndedError as end:
                raise ReadingProcessError(
                    f"the process that read {name} was killed twice ({end}), the second time while no other video was "
                    "read: the machine is probably out of memory. Free some, or lower decode_memory_gb so that the "
                    "video fails instead"
                ) from end

    def close(self) -> None:
        """End the idle processes; reading starts new ones."""
        _end_all(self._idle)

    def _read(self, name: str, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        """Read a video, or list its frames.

        Raises:
            ProcessEndedError: If the process is killed from outside.
        """
        try:
            answer, frames = self._answer(name, options)
        except TimeoutError as error:
            raise VideoReadError(name, f"reading took longer than {self._timeout_s:g} s") from error
        except ProcessEndedError as end:
            if end.is_killed:
                raise
            raise VideoReadError(name, end.reason) from end
        if "failed" in answer:
            raise ReadingProcessError(f"reading {name} failed, which is not the video's fault: {answer['failed']}")
        if "unreadable" in answer:
            raise VideoReadError(name, answer["unreadable"])
        return frames, answer

    def _answer(self, name: str, options: dict[str, Any] | None) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        request = {
            "path": name,
            "timeout_s": self._timeout_s,
            "memory_bytes": int(self._memory_gb * 1e9),
            "options": options or {},
            "lists": options is None,
            "resizing": None if self._resizing is None else asdict(self._resizing),
        }
        process = self._take()
        try:
            answer, frames = process.ask(request, self._timeout_s)
        except ProcessEndedError as end:
            if end.is_killed or not process.num_answers:
                raise
            process = ReadingProcess()  # an earlier video may have caused the crash
            answer, frames = process.ask(request, self._timeout_s)
        is_sound = "failed" not in answer and answer.get("is_expected", True)
        if is_sound and process.can_go_on:
            self._idle.append(process)
        else:
            process.end()
        return answer, frames

    def _take(self) -> ReadingProcess:
        """Take an idle process, or start a new one."""
        while True:
            try:
                process = self._idle.pop()
            except IndexError:
                return ReadingProcess()
            if process.can_go_on:
                return process
            process.end()


def read_video_apart(
    path: str | PathLike[str],
    timeout_s: float,
    memory_gb: float = DEFAULT_MEMORY_GB,
    resizing: FrameResizing | None = None,
    **options: Any,
) -> VideoClip:
    """Read one video file, or folder of pictures, in a process of its own; `VideoReader` is faster for many.

    Args:
        path: The file or folder.
        timeout_s: Timeout in seconds, above 0.
        memory_gb: Memory limit in gigabytes (10^9 bytes), above 0.
        resizing: Resizing of frames before they leave the process; None keeps their size.
        options: Arguments of `read_video`, or of `read_frame_folder` if `path` is a folder.

    Raises:
        VideoReadError: If the video cannot be read, takes too long or too much memory, or the decoder crashes.
        ReadingProcessError: If the video is not at fault.
    """
    reader = VideoReader(timeout_s, memory_gb, resizing)
    try:
        return reader.read(path, **options)
    finally:
        reader.close()


class _Turns:
    """A lock that lets any number of threads work at a time, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_working = 0
        self._is_one_alone = False

    @contextmanager
    def with_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_one_alone)
            self._num_working += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_working -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_one_alone)
            self._is_one_alone = True  # no other thread may begin
            self._changed.wait_for(lambda: not self._num_working)
        try:
            yield
        finally:
            with self._changed:
                self._is_one_alone = False
                self._changed.notify_all()


def _end_all(processes: list[ReadingProcess]) -> None:
    while processes:
        processes.pop().end()
