"""Reading a video in a process of its own, so that no file can stop or end the process that asked for it.

Decoders are C code: a thread that is stuck in them, or that they bring down, cannot be given up alone. The process of a
video is ended by its own alarm, so it outlives neither its time nor whoever asked.
"""

import json
import os
import signal
import subprocess
import sys
from io import BufferedReader
from os import PathLike, fspath
from typing import Any, BinaryIO

import numpy as np

from llava.video import VideoClip, VideoReadError, read_frame_folder, read_video


def read_video_apart(path: str | PathLike[str], timeout_s: float, **options: Any) -> VideoClip:
    """Read a video file, or a folder of pictures, in a process of its own.

    Args:
        path: The file or folder.
        timeout_s: Most time to take, in seconds, above 0.
        options: Arguments of `read_video`, or of `read_frame_folder` if `path` is a folder.

    Raises:
        VideoReadError: If the video cannot be read, takes too long, or the decoder crashes.
    """
    name = fspath(path)
    request = json.dumps({"path": name, "timeout_s": timeout_s, "options": options})
    command = [sys.executable, "-m", "llava.video_process", request]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        if not isinstance(process.stdout, BufferedReader):
            raise TypeError("the reading process gives no bytes")
        try:
            line = process.stdout.readline()
            if not line.endswith(b"\n"):
                raise VideoReadError(name, _ending(process.wait(), timeout_s))
            answer = json.loads(line)
            if "reason" in answer:
                raise VideoReadError(name, answer["reason"])
            frames = np.empty(answer["frames"], np.uint8)
            if process.stdout.readinto(frames.reshape(-1).data) < frames.size:
                raise VideoReadError(name, _ending(process.wait(), timeout_s))
            return VideoClip(**answer | {"frames": frames})
        finally:
            process.kill()


def _ending(status: int, timeout_s: float) -> str:
    """Why a process that ended with `status` gave no video."""
    if status == -signal.SIGALRM:
        return f"reading took longer than {timeout_s:g} s"
    if status < 0:
        return f"the decoder crashed with {signal.Signals(-status).name}"
    return f"the reading process failed with status {status}"


def _read(path: str, options: dict[str, Any], output: BinaryIO) -> None:
    """Write a line of JSON, then the pixels; or only a line with the reason why there are none."""
    try:
        clip = read_frame_folder(path, **options) if os.path.isdir(path) else read_video(path, **options)
    except VideoReadError as error:
        output.write(json.dumps({"reason": error.reason}).encode() + b"\n")
        return
    answer = vars(clip) | {"frames": clip.frames.shape}
    output.write(json.dumps(answer).encode() + b"\n")
    output.write(clip.frames.data)


def main() -> None:
    """Read the video that the command line asks for."""
    request = json.loads(sys.argv[1])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends the process, whatever it is stuck in
    signal.setitimer(signal.ITIMER_REAL, request["timeout_s"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked decides what an interrupt means
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what decoders print must not come between
        _read(request["path"], request["options"], output)
    os._exit(0)  # nothing is left to do, least of all for threads of a decoder


if __name__ == "__main__":
    main()
