"""Fixtures for the whole suite."""

import faulthandler
import gc
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import av
import numpy as np
import pytest
from filelock import FileLock

from inherited_signals import stop_inheriting
from reading_template import Template, forking

REPOSITORY = Path(__file__).resolve().parent.parent

_LONGEST_FILE = 1800  # s, also on a busy machine
_HANGING = pytest.StashKey()  # where to print, and the files begun
_LOGGING = pytest.StashKey()  # pytest's plugin that captures log records

gc.disable()  # until the tests are collected


class _Backwards(pytest.Dir):
    def collect(self):
        return list(super().collect())[::-1]


def pytest_collect_directory(path, parent):
    """Let every second of the processes that share the tests collect backwards.

    Each then finds half of the files compiled by the other, which takes 9 s for all of them.
    """
    worker = getattr(parent.config, "workerinput", {"workerid": "gw0"})["workerid"]
    return _Backwards.from_parent(parent, path=path) if int(worker.removeprefix("gw")) % 2 else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Let processes that share the tests begin with long files, lest one is left alone with them at the end.

    Those are files with slow tests, and then those with many. Of the slow ones those are first that need no server
    of programs, as that is still importing.
    """
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        served = {item.path for item in items if "program_server" in item.fixturenames}
        num_tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path not in slow, item.path in served, -num_tests[item.path], item.path))


def pytest_collection_finish(session):
    """Spare each test what costs more than most tests do.

    Garbage is collected among what tests make, never among the tests and what they import. In each phase of each test,
    pytest looks through thousands of loggers twice and attaches handlers to those that do not propagate: torch has 60.
    """
    gc.freeze()
    gc.enable()
    if hasattr(session.config, "workerinput"):
        session.config.stash[_LOGGING] = session.config.pluginmanager.unregister(name="logging-plugin")
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch.") and isinstance(logger, logging.Logger):
            logger.propagate = True


def pytest_configure(config):
    """Let no test depend on the shell that started it, and a file of tests that hangs end the run and print where.

    `faulthandler_timeout` would start a thread for each test, which takes longer than most tests.
    """
    stop_inheriting()
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        config.add_cleanup(faulthandler.cancel_dump_traceback_later)
        config.stash[_HANGING] = open(os.dup(2), "w"), set()  # noqa: SIM115


def pytest_runtest_setup(item):
    output, begun = item.config.stash[_HANGING]
    if item.path not in begun:
        begun.add(item.path)
        faulthandler.dump_traceback_later(_LONGEST_FILE, exit=True, file=output)


@pytest.fixture(scope="session", autouse=True)
def _nothing_drawn_for_outlines():
    """Leave tensors on the device "meta" as they are made: they hold no values that could be drawn.

    A checkpoint's model is made there before its weights are read, and torch takes a sixth of the time of loading a
    tiny one to find that out.
    """
    with pytest.MonkeyPatch.context() as patch:
        if torch := sys.modules.get("torch"):
            for name in ("kaiming_uniform_", "normal_", "ones_", "uniform_", "zeros_"):
                patch.setattr(torch.nn.init, name, _unless_meta(getattr(torch.nn.init, name)))
        yield


def _unless_meta(draw):
    return lambda tensor, *args, **kwargs: tensor if tensor.is_meta else draw(tensor, *args, **kwargs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let processes that share the tests capture log records only in those that read them.

    The warnings of others are in their captured standard error.
    """
    plugin = item.config.stash.get(_LOGGING, None)
    if plugin is None or "caplog" not in item.fixturenames:
        return (yield)
    plugins = item.config.pluginmanager
    plugins.register(plugin, "logging-plugin")
    try:
        return (yield)
    finally:
        plugins.unregister(plugin)


@pytest.fixture(autouse=True)
def _seeded():
    """Give a test the same random tensors in every run, on the CPU and on devices in use.

    `torch.manual_seed` records a stack for each kind of device that is not yet in use: 2 ms for each test.
    """
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory):
    """Keep what we remember between runs out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session", autouse=True)
def reading_template(tmp_path_factory):
    """Fork reading processes where a new Python, with all that it imports, would take longer than reading.

    Programs of `python_server.py` find the template, too. A test that needs a new Python has the fixture
    `new_reading_processes`.
    """
    from llava import reading_process

    template = Template(str(tmp_path_factory.mktemp("reading") / "socket"), reading_process.WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_process, "subprocess", forking(template.address))
        yield template
    template.end()


@pytest.fixture
def new_reading_processes(monkeypatch):
    """Have each reading process be a new Python, as outside tests."""
    from llava import reading_process

    monkeypatch.setattr(reading_process, "subprocess", subprocess)


def _golden_root() -> Path:
    """Numbers computed by the original code: a copy beside the checkout is preferred, the shipped one is equal."""
    beside = REPOSITORY.parent / "shared" / "golden"
    return beside if beside.is_dir() else REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by Playwright, which downloads nothing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install -e .[dev])"
    )
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with the golden numbers, one subfolder per original system; each has a README.md."""
    return _golden_root()


@pytest.fixture(scope="session")
def environment(tmp_path_factory, reading_template):
    """Environment of the processes that tests start: on the CPU, one thread, no network, and no cache of others.

    The file `NETWORK_LOG` gets the hosts that are tried all the same.
    """
    site_packages = Path(find_spec("lmms_eval").origin).parents[1]
    return {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        # lmms-eval's response cache belongs to a commit: of the checkout that .venv lies in, where one is found.
        "GIT_CEILING_DIRECTORIES": str(site_packages.parent),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path_factory.mktemp("hf")),
        "HF_HUB_OFFLINE": "1",
        "NETWORK_LOG": str(tmp_path_factory.mktemp("network") / "hosts"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(__file__).with_name("offline")), os.environ.get("PYTHONPATH")])
        ),
        "READING_TEMPLATE": reading_template.address,
        "TOKENIZERS_PARALLELISM": "false",
    }


@pytest.fixture(scope="session")
def common_folder(request, tmp_path_factory):
    """Temporary folder of all processes that share the tests."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if hasattr(request.config, "workerinput") else folder


@pytest.fixture(scope="session")
def stock_tasks(common_folder):
    """File for the index of lmms-eval's own tasks."""
    return common_folder / "stock_tasks.json"


@pytest.fixture(scope="session")
def program_server(common_folder, stock_tasks, environment):
    """Connection to `python_server.py`; processes that share the tests share it, for it imports for seconds.

    The one that asks first starts it, and ends it; those that are connected by then stay so. Nobody waits until it has
    imported: it answers when it has.
    """
    address, process = common_folder / "python_server", None
    lock = FileLock(common_folder / "python_server.lock")
    with lock, socket.socket(socket.AF_UNIX) as connection, ExitStack() as stack:
        if not address.exists():
            # A path of a socket must be short.
            path = Path(stack.enter_context(TemporaryDirectory())) / "socket"
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
                listener.listen()
                number = listener.fileno()
                # -P: `tests/stgridpool` beside the server is not the package of that name.
                command = [sys.executable, "-P", str(Path(__file__).with_name("python_server.py"))]
                command += [str(number), str(stock_tasks)]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "pass_fds": [number]}
                process = subprocess.Popen(command, env=environment, **pipes)
            address.write_text(str(path))
        connection.connect(address.read_text())
        lock.release()
        yield connection
        lock.acquire()
        if process:
            address.unlink()
            process.stdin.close()
            process.wait(timeout=1200)


@pytest.fixture(scope="session", autouse=True)
def _early_server(request, _own_caches):
    """Starts `python_server.py` before the first test, where one needs it, for it imports while the first tests run."""
    if any("program_server" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("program_server")


@pytest.fixture(scope="session")
def start_programs(tmp_path_factory, environment, program_server):
    """Function that starts Python programs beside each other, at once, as `python_server.py` says.

    Each is a list of arguments of `python`. Further arguments: their working directory, and what each one's environment
    holds besides `environment`. What it returns has `processes`, `logs`, a pair of files each, and `wait()`, which
    returns `statuses` and `peak`.
    """
    stream = program_server.makefile("rw")

    def start(*programs, cwd=None, environments=None):
        folder = tmp_path_factory.mktemp("programs")
        logs = [(folder / f"stdout{number}", folder / f"stderr{number}") for number in range(len(programs))]
        requests = [
            {
                "arguments": list(map(str, arguments)),
                "cwd": str(cwd or folder),
                "environment": environment | more,
                "stdout": str(stdout),
                "stderr": str(stderr),
            }
            for arguments, more, (stdout, stderr) in zip(
                programs, environments or [{}] * len(programs), logs, strict=True
            )
        ]
        print(json.dumps(requests), file=stream, flush=True)
        processes = json.loads(stream.readline())

        def wait():
            return SimpleNamespace(**json.loads(stream.readline()))

        return SimpleNamespace(processes=processes, logs=logs, wait=wait)

    with stream:
        yield start


@pytest.fixture(scope="session")
def run_python(start_programs):
    """Function that runs one Python program; returns `returncode`, `stdout` and `stderr`, as `subprocess.run` does."""

    def run(*arguments, cwd=None, **environment):
        started = start_programs(arguments, cwd=cwd, environments=[environment])
        [status] = started.wait().statuses
        stdout, stderr = (path.read_text() for path in started.logs[0])
        return SimpleNamespace(returncode=status, stdout=stdout, stderr=stderr)

    return run


@pytest.fixture(scope="session")
def environments_of_ranks():
    """Function that returns what a launcher puts into the environment of each of its ranks."""

    def environments_of_ranks(num_processes):
        if num_processes == 1:
            return [{}]
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes)}
        return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]

    return environments_of_ranks


@pytest.fixture(scope="session")
def picture():
    """Function that makes a picture (height, width, 3) which no other index gives."""
    return _picture


def _picture(index, width, height):
    """Moving ramps, and a brightness of its own."""
    row, column = np.mgrid[:height, :width]
    channels = [column * 3 + index * 4, row * 4 + index * 2, row * 0 + index * 4]
    return (np.stack(channels, -1) % 256).astype(np.uint8)


def _write_video(path, *, num_frames=60, rate=24, size=(64, 48), codec="libx264", pixels="yuv420p", **kwargs):
    with av.open(str(path), "w", options=kwargs.get("muxer", {})) as container:
        container.metadata["title"] = kwargs.get("title", "")
        stream = container.add_stream(codec, rate=rate, options=kwargs.get("encoder", {}))
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = kwargs.get("gop", 12)
        stream.codec_context.max_b_frames = kwargs.get("b_frames", 0)
        stream.codec_context.colorspace = kwargs.get("colorspace", 2)
        generator = np.random.default_rng(0)
        for index in range(num_frames):
            image = _picture(index, *size)
            if kwargs.get("noise"):
                image = generator.integers(0, 256, image.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if "times" in kwargs:
                frame.pts = kwargs["times"][index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video():
    """Function that encodes `picture(i)`, 60 frames of 64x48 at 24 per second.

    Further arguments: gop, b_frames, muxer, encoder options, times, noise, colorspace, title.
    """
    return _write_video


_MISBEHAVING_WORKER = """
import importlib.util, os, signal, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("worker", {worker!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
plain, notes, served = worker._read, Path({notes!r}), []

def is_first(name):
    marker = notes / name
    known = marker.exists()
    marker.touch()
    return not known

def read(request):
    name = Path(request["path"]).name
    with open(notes / "log", "a") as log:
        print(name, os.getpid(), file=log)
    if name.startswith("stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    if name.startswith("crash") or (name.startswith("delicate") and served):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("killed") or (name.startswith("once killed") and is_first(name)):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("exit"):
        os._exit(3)
    if name.startswith("import"):
        worker._prepared = lambda *_: lambda: importlib.import_module("no_such_package")
    if name.startswith("confusing"):
        worker._prepared = lambda *_: lambda: [][0]
    if name.startswith("greedy"):
        worker._prepared = lambda *_: lambda: bytearray(2 * request["memory_bytes"])
    served.append(name)
    return plain(request)

if {grows!r}:
    worker._resident_bytes = lambda: len(served) << 30
worker._read = read
worker.main()
"""


@pytest.fixture
def misbehave(tmp_path, monkeypatch):
    """Function after which reading processes do what a video's name says.

    It takes `grows`, whether they grow by 1 GiB with each video, and returns a function that lists the videos begun so
    far with the process of each.
    """
    from llava import reading_process

    def begin(grows=False):
        notes = tmp_path / "notes"
        notes.mkdir(exist_ok=True)
        script = _MISBEHAVING_WORKER.format(worker=str(reading_process.WORKER), notes=str(notes), grows=grows)
        (notes / "worker.py").write_text(script)
        (notes / "log").touch()
        monkeypatch.setattr(reading_process, "WORKER", notes / "worker.py")
        return lambda: [line.rsplit(" ", 1) for line in (notes / "log").read_text().splitlines()]

    return begin


@pytest.fixture(scope="session")
def odd_videos(tmp_path_factory):
    """A folder of the files that one finds in data sets.

    `readable` gives the number of frames by name, `unreadable` the reason.
    """
    folder = tmp_path_factory.mktemp("odd videos")
    plain = _write_video(folder / "a name with spaces, ünïcode 视频.mp4")
    _write_video(folder / "one_frame.mp4", num_frames=1)
    _write_video(folder / "one_pixel.mp4", num_frames=5, size=(1, 1), pixels="yuv444p")
    _write_video(folder / "no_duration.h264")
    _write_video(folder / "variable_rate.mp4", times=[index * index for index in range(60)], b_frames=2)
    _write_video(folder / "ten_bit.mp4", pixels="yuv420p10le")
    matroska = _write_video(folder / "no_size.mkv")
    first = _write_video(folder / "cut_in_the_middle.mp4", muxer={"movflags": "faststart"})
    damaged = _write_video(folder / "damaged_in_the_middle.mp4", noise=True)
    data = plain.read_bytes()
    numbers = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 64 << 16, 0, 1 << 30)  # a quarter turn
    at = {box: data.rindex(box) + 4 for box in (b"tkhd", b"stts", b"stsz", b"avc1")}
    (folder / "rotated.mp4").write_bytes(_patched(data, at[b"tkhd"] + 40, numbers))
    (folder / "declares_no_size.mp4").write_bytes(_patched(data, at[b"avc1"] + 24, bytes(4)))
    (folder / "declares_huge_times.mp4").write_bytes(_patched(data, at[b"stts"] + 8, b"\x7f\xff\xff\xff"))
    (folder / "declares_huge_sizes.mp4").write_bytes(_patched(data, at[b"stsz"] + 8, b"\x7f\xff\xff\xff"))
    trimmed = _patched(data, data.rindex(b"elst") + 12, struct.pack(">i", 1250))  # ms of 2500
    (folder / "trimmed_by_an_edit_list.mp4").write_bytes(trimmed)
    (folder / "index_missing.mp4").write_bytes(data[: len(data) * 6 // 10])
    (folder / "cut_in_the_header.mp4").write_bytes(data[:30])
    first.write_bytes(first.read_bytes()[: len(data) * 6 // 10])
    size = matroska.read_bytes()
    _write_cuts_between_frames(folder)
    matroska.write_bytes(size.replace(b"\xb0\x81\x40", b"\xb0\x81\x00").replace(b"\xba\x81\x30", b"\xba\x81\x00"))
    noise = damaged.read_bytes()
    damaged.write_bytes(_patched(noise, len(noise) // 3, bytes(len(noise) // 3)))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("text\n" * 999)
    (folder / "folder.mp4").mkdir()
    _write_sound(folder / "sound.mp4")
    os.mkfifo(folder / "pipe")
    (folder / "playlist.mp4").write_text("ffconcat version 1.0\nfile pipe\n")
    unreadable = {
        "empty.mp4": "(End of file|Invalid data)",
        "cut_in_the_header.mp4": "(Invalid data|truncated)",
        "index_missing.mp4": r"truncated: the last \d+ bytes are missing",
        "cut_in_the_middle.mp4": r"truncated: the last \d+ bytes are missing",
        "cut_between_frames.mp4": r"truncated: the last \d+ bytes are missing",
        "cut_in_the_sound.mp4": r"truncated: the last \d+ bytes are missing",
        "declares_huge_sizes.mp4": "Invalid data",
        "no_size.mkv": "Invalid data",
        "sound.mp4": "no video stream",
        "text.mp4": "Invalid data",
        "folder.mp4": "no frames: the folder holds no JPEG or PNG files",
        "pipe": "is not a regular file",
        "playlist.mp4": "not a video container",
        "missing.mp4": "no such file",
    }
    short = {"one_frame.mp4": 1, "one_pixel.mp4": 5, "trimmed_by_an_edit_list.mp4": 30}
    others = {path.name for path in folder.iterdir()} - unreadable.keys()
    readable = {name: short.get(name, 60) for name in sorted(others)}
    return SimpleNamespace(folder=folder, readable=readable, unreadable=unreadable)


def _patched(data, position, new):
    return data[:position] + new + data[position + len(new) :]


def _write_cuts_between_frames(folder):
    """Two files that end after 30 of their 60 frames: exactly there, and within the sound that is stored next."""
    path = folder / "cut_in_the_sound.mp4"
    _write_sound(path, num_frames=60)
    with av.open(str(path)) as container:
        packets = sorted((one.pos, one.size, one.stream.type) for one in container.demux() if one.size)
    frames = [number for number, (*_, kind) in enumerate(packets) if kind == "video"]
    position, size, _ = packets[frames[29]]
    sound_position, sound_size, _ = next(packet for packet in packets[frames[29] :] if packet[2] == "audio")
    data = path.read_bytes()
    (folder / "cut_between_frames.mp4").write_bytes(data[: position + size])
    path.write_bytes(data[: sound_position + sound_size // 2])


def _write_sound(path, num_frames=0):
    """Silence, and as many frames of 24 per second."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        sound = container.add_stream("aac", rate=24000, layout="mono")
        video = container.add_stream("libx264", rate=24) if num_frames else None
        for index in range(num_frames or 1):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 24000
            container.mux(sound.encode(frame))
            if video:
                image = av.VideoFrame.from_ndarray(_picture(index, 64, 48), format="rgb24")
                container.mux(video.encode(image))
        for stream in container.streams:
            container.mux(stream.encode())
