"""Reading processes that start at once: each is a fork of a process that has imported what they import.

As a program, ``python -I -S reading_template.py SOCKET WORKER PATH``, it imports what the program WORKER does with the
search path PATH (JSON), and listens on SOCKET until its standard input ends. Whoever connects sends the arguments of a
program (JSON), three open files and a folder; a fork that has those as its standard streams and its working directory
goes on with that program. The answer is its process ID, and, when it has ended, its exit status (as that of
`subprocess.Popen`).

This file imports nothing that reading processes must do without.
"""

import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

_NUMBER = struct.Struct("<q")


class Template:
    """The process that reading processes are forked from; it ends with this one or with `end`."""

    def __init__(self, address: str, worker: Path) -> None:
        self.address = address
        search_path = json.dumps([entry for entry in sys.path if entry])
        command = [sys.executable, "-I", "-S", __file__, address, str(worker), search_path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process.stdout.readline()

    def end(self) -> None:
        self._process.communicate()


class Forked:
    """What a reading process is to the one that started it: as much of `subprocess.Popen` as is used there."""

    def __init__(self, address: str, arguments: list[str]) -> None:
        (requests, self.stdin), (self.stdout, answers) = os.pipe(), os.pipe()
        self.stdin, self.stdout = os.fdopen(self.stdin, "wb", 0), os.fdopen(self.stdout, "rb", 0)
        self.returncode = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        folder = os.open(".", os.O_RDONLY)  # which tests change
        socket.send_fds(self._connection, [json.dumps(arguments).encode()], [requests, answers, 2, folder])
        for number in (requests, answers, folder):
            os.close(number)
        self.pid = self._number()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = self._number()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a reading process", timeout)
        return self.poll()

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _number(self) -> int:
        number = self._connection.recv(_NUMBER.size, socket.MSG_WAITALL)
        return _NUMBER.unpack(number)[0] if number else -signal.SIGKILL  # the template has ended, and all with it


def forking(address: str) -> SimpleNamespace:
    """Return what `llava.reading_process` is to use in place of `subprocess`."""

    def start(command: list[str], **_: object) -> Forked:
        return Forked(address, command[command.index("-S") + 1 :])

    return SimpleNamespace(**vars(subprocess) | {"Popen": start})


def listen(address: str, worker: ModuleType) -> None:
    """Fork for each that connects."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    answer(connection, worker)
                    os._exit(0)


def answer(connection: socket.socket, worker: ModuleType) -> None:
    """Start the program that is asked for, and say how it ended; it ends with whoever asked, or with the template."""
    worker._end_with(os.getppid())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    arguments, streams, *_ = socket.recv_fds(connection, 1 << 20, 4)
    process = os.fork()
    if process == 0:
        connection.close()
        os.fchdir(streams.pop())
        become(json.loads(arguments), streams)
    connection.sendall(_NUMBER.pack(process))
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    ended = os.pidfd_open(process)
    if ended not in select.select([ended, connection], [], [])[0]:  # who asked has ended
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(_NUMBER.pack(status))


def become(arguments: list[str], streams: list[int]) -> None:
    """Go on as `python -I -S ARGUMENT...` does, where the second argument is the process to end with."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.argv = [arguments[0], str(os.getppid()), *arguments[2:]]
    status = 1
    try:
        runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("worker", sys.argv[2])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._import_package(json.loads(sys.argv[3]))
    listen(sys.argv[1], module)
