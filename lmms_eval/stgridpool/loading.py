"""Videos on their way to the accelerator: decoded and preprocessed in threads, ahead of the questions about them."""

import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava.video import VideoClip
from llava.video_process import read_video_apart
from lmms_eval_stgridpool.arguments import Arguments


@dataclass(frozen=True, eq=False)
class LoadedVideo:
    """Frames as the vision tower takes them, still on the host.

    Attributes:
        pixels: (T, 3, S, S), in pinned memory where the model is on a GPU.
        times: One per frame, in seconds.
        duration: Length of the video, in seconds.
        seconds: Seconds spent on "decode" and "preprocess".
    """

    pixels: torch.Tensor
    times: tuple[float, ...]
    duration: float
    seconds: dict[str, float]


class VideoLoader:
    """Loads videos in the order in which they will be asked for, a few ahead.

    At most `arguments.prefetch` videos besides the one in use are held, however many there are.

    Args:
        image_processor: The model's image processor.
        arguments: How videos are read, and how many ahead by how many threads.
        dtype: Of the pixels.
        pin: Whether to put pixels into pinned memory, from which a GPU copies without waiting.
    """

    def __init__(self, image_processor: Any, arguments: Arguments, dtype: torch.dtype, pin: bool) -> None:
        self._image_processor, self._arguments = image_processor, arguments
        self._dtype, self._pin = dtype, pin
        self._expected: deque[Path] = deque()
        self._loading: deque[tuple[Path, Future[LoadedVideo]]] = deque()
        self._threads: ThreadPoolExecutor | None = None
        if arguments.prefetch:
            self._threads = ThreadPoolExecutor(arguments.decode_threads, thread_name_prefix="video")

    def expect(self, paths: Iterable[Path]) -> None:
        """Announce the videos that `get` will be called for, in that order; what was expected before is forgotten."""
        self.close()
        if self._threads is not None:
            self._expected = deque(paths)
            self._fill()

    def get(self, path: Path) -> LoadedVideo:
        """The video; loaded here and now if it was not expected next.

        Raises:
            VideoReadError: If it cannot be read.
        """
        if not self._loading or self._loading[0][0] != path:
            return self._load(path)
        future = self._loading.popleft()[1]
        self._fill()
        return future.result()

    def close(self) -> None:
        """Forget what was expected; loading that has begun ends by itself."""
        self._expected.clear()
        while self._loading:
            self._loading.popleft()[1].cancel()

    def _fill(self) -> None:
        while self._threads is not None and self._expected and len(self._loading) < self._arguments.prefetch:
            path = self._expected.popleft()
            self._loading.append((path, self._threads.submit(self._load, path)))

    def _load(self, path: Path) -> LoadedVideo:
        started = time.perf_counter()
        clip = self._read(path)
        decoded = time.perf_counter()
        pixels = self._image_processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"].to(self._dtype)
        if self._pin:
            pixels = pixels.pin_memory()
        seconds = {"decode": decoded - started, "preprocess": time.perf_counter() - decoded}
        return LoadedVideo(pixels, tuple(clip.times), clip.duration, seconds)

    def _read(self, path: Path) -> VideoClip:
        options: dict[str, Any] = {"max_frames_num": self._arguments.max_frames_num}
        if not path.is_dir():
            options |= {"force_sample": self._arguments.force_sample, "backend": self._arguments.video_decode_backend}
        return read_video_apart(path, self._arguments.decode_timeout_s, **options)
