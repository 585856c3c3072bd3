"""ReadingProcess: a process that reads videos for this one, and can be ended at any time."""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORKER = Path(__file__).with_name("reading_worker.py")

_LONGEST_START = 600.0  # s, on a busy machine with a slow disk
_LONGEST_END = 5.0  # s, for the kernel to end a process
_MOST_GROWTH = 256 * 2**20  # bytes by which a process may have grown after a video and still read the next one
_KILLED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)


class ReadingProcessError(RuntimeError):
    """Error for a failure caused by the machine or the installation, not by the video."""


class ProcessEndedError(Exception):
    """Error for a process that ended before it had answered.

    Attributes:
        status: Its exit status; if negative, minus the number of the signal that ended it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status

    @property
    def is_killed(self) -> bool:
        """Whether it was killed from outside, as the system does when memory runs out."""
        return self.status < 0 and signal.Signals(-self.status) in _KILLED_FROM_OUTSIDE

    @property
    def reason(self) -> str:
        """The reason to report for the video that it was reading."""
        if self.status < 0:
            return f"the decoder crashed with {signal.Signals(-self.status).name}"
        return f"the decoder ended the reading process with status {self.status}"


class ReadingProcess:
    """A reading process: a new Python that imports this package, but not torch, and uses no GPU.

    It ends when this process ends, for whatever reason.

    Attributes:
        num_answers: Number of videos that it has read, or has found unreadable.

    Raises:
        ReadingProcessError: If it cannot be started or cannot import what it needs.
    """

    def __init__(self) -> None:
        search_path = [os.path.abspath(entry) for entry in sys.path if entry]
        # -I: neither the working directory nor the environment changes what is imported
        command = [sys.executable, "-I", "-S", str(WORKER), str(os.getpid()), json.dumps(search_path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.num_answers = 0
        self._grown_bytes = 0
        try:
            first = self._message(time.monotonic() + _LONGEST_START)
        except TimeoutError as error:
            self.end()
            raise ReadingProcessError(f"a reading process did not start within {_LONGEST_START:g} s") from error
        except ProcessEndedError as error:
            raise ReadingProcessError(f"a reading process ended at its start, with {error}") from error
        if "failed" in first:
            self.end()
            raise ReadingProcessError(f"a reading process cannot start:\n{first['failed']}")

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def can_go_on(self) -> bool:
        """Whether it is alive and has not grown."""
        return self._process.poll() is None and self._grown_bytes <= _MOST_GROWTH

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        """Let the process read a video, and return the answer and the pixels, see `llava.reading_worker`.

        Raises:
            TimeoutError: If it takes longer than `timeout_s` seconds; the process is ended.
            ProcessEndedError: If the process ends before it has answered.
        """
        deadline = time.monotonic() + timeout_s
        frames = None
        try:
            self._send(request)
            answer = self._message(deadline)
            if "shape" in answer:
                frames = np.empty(answer["shape"], np.uint8)
                self._fill(frames.reshape(-1).data, deadline)
            growth = self._message(deadline) if "shape" in answer else answer
            self._grown_bytes = growth["grown_bytes"]
        except BaseException:
            self.end()  # a late answer would belong to no request
            raise
        self.num_answers += 1
        return answer, frames

    def end(self) -> None:
        """End the process, even if it is stopped or stuck, without waiting for one that waits for a dead disk."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LONGEST_END)

    def _send(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message).encode()
        try:
            os.write(_number(self._process.stdin), struct.pack("<Q", len(data)) + data)
        except BrokenPipeError as error:
            raise self._ending(time.monotonic()) from error

    def _message(self, deadline: float) -> dict[str, Any]:
        head = bytearray(8)
        self._fill(memoryview(head), deadline)
        data = bytearray(struct.unpack("<Q", head)[0])
        self._fill(memoryview(data), deadline)
        message: dict[str, Any] = json.loads(data)
        return message

    def _fill(self, buffer: memoryview, deadline: float) -> None:
        """Fill `buffer` with bytes from the pipe."""
        number = _number(self._process.stdout)
        readable = select.poll()
        readable.register(number, select.POLLIN)
        while buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not readable.poll(min(left, 3600) * 1000):
                continue
            count = os.readv(number, [buffer])
            if not count:
                raise self._ending(deadline)
            buffer = buffer[count:]

    def _ending(self, deadline: float) -> Exception:
        """Return the error to raise after the process has closed its pipes, which it does by ending."""
        try:
            status = self._process.wait(max(deadline - time.monotonic(), _LONGEST_END))
        except subprocess.TimeoutExpired:
            return TimeoutError()
        return TimeoutError() if status == -signal.SIGALRM else ProcessEndedError(status)


def _number(pipe: Any) -> int:
    return int(pipe.fileno())
