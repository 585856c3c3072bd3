"""The program of a reading process: requests come in on standard input, videos go out on standard output.

It is started by its path, never as a module, and imports the package `llava` from its own folder; the working directory
and environment variables have no influence. Nothing here imports torch.

Every message is its length (8 bytes, little-endian) and JSON. A request is {"path", "timeout_s", "memory_bytes",
"options", "resizing", "lists"}. The answer is one of
* {"listed": fields of `FrameList`}, if the request says to list the frames only;
* {"clip": fields of `VideoClip`, "shape": [T, h, w, 3]}, followed by the pixels, and then {"grown_bytes": ...};
* {"unreadable": reason, "is_expected": whether a reader says so itself}, if the video is at fault;
* {"failed": reason}, if it is not.
An answer without pixels has "grown_bytes" itself.
A first message, {"ready": true} or {"failed": reason}, says whether everything could be imported.
"""

import ctypes
import importlib.util
import inspect
import json
import os
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux' prctl


def main() -> None:
    """Serve requests until the parent process closes the pipe or ends."""
    parent, search_path = int(sys.argv[1]), json.loads(sys.argv[2])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends the process, whatever it is stuck in
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    _end_with(parent)
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as answers:
        _keep_decoders_off_the_pipes()
        try:
            _import_package(search_path)
        except Exception:  # noqa: BLE001 - whatever it is, it is said to the process that asks
            _send(answers, {"failed": traceback.format_exc()})
            return
        _send(answers, {"ready": True})
        baseline = _resident_bytes()
        while (request := _receive(requests)) is not None:
            _answer(request, answers, baseline)
    os._exit(0)  # nothing is left to do, least of all for threads of a decoder


def _end_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends, even in the middle of decoding."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended in the meantime
        os._exit(0)


def _keep_decoders_off_the_pipes() -> None:
    """Give decoders an empty standard input, and redirect their output to standard error."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)


def _import_package(search_path: list[str]) -> None:
    """Import the package `llava` that contains this file, and all else from the search path of the parent."""
    sys.path[:] = search_path
    spec = importlib.util.spec_from_file_location("llava", Path(__file__).with_name("__init__.py"))
    if spec is None or spec.loader is None:
        raise ImportError(f"{Path(__file__).parent} is not a package")
    package = importlib.util.module_from_spec(spec)
    sys.modules["llava"] = package
    spec.loader.exec_module(package)
    importlib.import_module("llava.video")


def _answer(request: dict[str, Any], answers: BinaryIO, baseline: int) -> None:
    """Read one video within its limits of time and memory, and send it or the reason for failing."""
    signal.setitimer(signal.ITIMER_REAL, request["timeout_s"])
    message, pixels = _read(request)
    if pixels is not None:
        _send(answers, message)
        answers.write(pixels.data)
        answers.flush()
        del pixels
        message = {}
    _send(answers, message | {"grown_bytes": _resident_bytes() - baseline})
    signal.setitimer(signal.ITIMER_REAL, 0)


def _read(request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Read the video of a request, and return the answer and the pixels (T, h, w, 3) or None."""
    from llava.video import VideoReadError  # noqa: PLC0415 - importable only now

    try:
        read = _prepared(request["path"], request["options"], request["resizing"], request["lists"])
        _limit_memory(request["memory_bytes"])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said to the process that asks
        return _failed(error), None
    try:
        clip = read()
    except ImportError as error:
        return _failed(error), None
    except Exception as error:  # noqa: BLE001 - the options are right, so the file has led the reader astray
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            limit = f"{request['memory_bytes'] / 1e9:g} GB of memory"
            return _unreadable(f"reading takes more than {limit}: raise decode_memory_gb if the machine has it"), None
        if isinstance(error, VideoReadError):
            return _unreadable(error.reason, is_expected=True), None
        return _unreadable(f"the reader failed with {type(error).__name__}: {error}"), None
    return _answered(clip)


def _answered(found: Any) -> tuple[dict[str, Any], Any]:
    """Return the answer with a `FrameList` and no pixels, or with a `VideoClip` and its pixels."""
    fields = dict(vars(found))
    pixels = fields.pop("frames", None)
    if pixels is None:
        return {"listed": fields}, None
    return {"clip": fields, "shape": pixels.shape}, pixels


def _unreadable(reason: str, is_expected: bool = False) -> dict[str, Any]:
    return {"unreadable": reason, "is_expected": is_expected}


def _failed(error: Exception) -> dict[str, Any]:
    return {"failed": f"{type(error).__name__}: {error}"}


def _prepared(path: str, options: dict[str, Any], resizing: dict[str, Any] | None, lists: bool) -> Callable[[], Any]:
    """Return a function that reads the video, or lists its frames, after checking its options without reading the file.

    Raises:
        Exception: Of any kind, if an option is wrong or a library is missing.
    """
    from llava.frame_list import list_frames  # noqa: PLC0415
    from llava.frame_resizing import FrameResizing  # noqa: PLC0415 - importable only now
    from llava.video import check_options, read_frame_folder, read_video  # noqa: PLC0415

    if lists:
        return partial(list_frames, path)
    options = options | {"resizing": None if resizing is None else FrameResizing(**resizing)}
    check_options(**options)
    reader = read_frame_folder if os.path.isdir(path) else read_video
    inspect.signature(reader).bind(path, **options)
    return partial(reader, path, **options)


def _limit_memory(num_bytes: int) -> None:
    """Limit the address space of the process to `num_bytes` more than its present size."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return
    limit = int(status.read_text().split()[0]) * resource.getpagesize() + num_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _resident_bytes() -> int:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * resource.getpagesize() if status.exists() else 0


def _send(answers: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    answers.write(struct.pack("<Q", len(data)) + data)
    answers.flush()


def _receive(requests: BinaryIO) -> dict[str, Any] | None:
    """Receive the next request; None if the pipe has been closed."""
    head = requests.read(8)
    if len(head) < 8:
        return None
    request: dict[str, Any] = json.loads(requests.read(struct.unpack("<Q", head)[0]))
    return request


if __name__ == "__main__":
    main()
