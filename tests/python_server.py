"""Starts Python programs at once: they are forked from this process, which has imported what takes long.

Called as ``python python_server.py LISTENER INDEX``, where LISTENER is the number of a socket that listens; ends when
its input does. Any number of processes may connect to the socket, each is served by a fork. Each line that they send is
a JSON list of programs that run beside each other. A program has its `arguments` as behind `python`, its `cwd`,
`environment` and the files `stdout` and `stderr`. The first line of the answer lists their process IDs; the second one,
when all have ended, is an object: their `statuses` and `peak`, the most memory of one in MiB. As under torchrun, the
first program that fails ends the others.
"""

import atexit
import ctypes
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import weakref
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import lmms_eval.evaluator  # noqa: F401 - this, the last import and `LATE_IMPORTS` are the point
import yaml
from filelock import FileLock
from lmms_eval import tasks
from lmms_eval.tasks import TaskManager
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import lmms_eval_stgridpool.llava_video  # noqa: F401
from llava import reading_process
from lmms_eval_stgridpool.run.evaluation import unrecognised
from lmms_eval_stgridpool.run.versions import untested_versions

sys.path.append(str(Path(__file__).with_name("shared")))
from reading_template import forking

sys.path.pop()

LATE_IMPORTS = ("nltk", "pytablewriter", "rich.progress")
"""What lmms-eval 0.7.3 imports at the end of each run: for error bars, tables and bars of progress."""


def listen(number):
    """Fork for each process that connects, until the input ends; return the program that this process is to become."""
    with socket.socket(fileno=number) as listener:
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    return serve(connection)
    return None


def serve(connection):
    """Answer until the other side has closed, except in a process that is to become a program: return this program."""
    with connection.makefile("rw") as stream:
        return answer(stream)


def answer(stream):
    for line in stream:
        processes, programs = [], json.loads(line)
        if any(knows_stock_tasks(program["arguments"]) for program in programs):
            remember_stock_tasks(Path(sys.argv[2]))
        for program in programs:
            if (process := os.fork()) == 0:
                return program
            processes.append(process)
        say(stream, processes)
        say(stream, wait(processes))
    return None


def say(stream, what):
    stream.write(json.dumps(what) + "\n")
    stream.flush()


def wait(processes):
    ended = {}
    while len(ended) < len(processes):
        process, status, usage = os.wait3(0)
        ended[process] = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024
        if status:
            for other in set(processes) - ended.keys():
                os.kill(other, signal.SIGTERM)
    statuses, peaks = zip(*map(ended.get, processes), strict=True)
    return {"statuses": statuses, "peak": max(peaks)}


def become(program):
    """Go on as `python ARGUMENT...` does."""
    os.chdir(program["cwd"])
    os.environ.clear()
    os.environ.update(program["environment"])
    for descriptor, path in enumerate((os.devnull, program["stdout"], program["stderr"])):
        os.dup2(os.open(path, os.O_RDWR if path == os.devnull else os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    if address := os.environ["READING_TEMPLATE"]:
        reading_process.subprocess = forking(address)
    first, *sys.argv = program["arguments"]
    sys.path[0] = program["cwd"]
    if first == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(code, {"__name__": "__main__"})  # noqa: S102
    else:
        sys.argv.insert(0, first)
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def knows_stock_tasks(arguments):
    return arguments[:2] == ["-m", "lmms_eval"] or Path(arguments[0]).name in ("extract_features.py", "probe.py")


@functools.cache
def remember_stock_tasks(file):
    """Let programs find the index of lmms-eval's own tasks, which takes seconds to make; those of tests are read.

    The index is kept in `file`.
    """
    with FileLock(f"{file}.lock"):  # several forks want it, once
        if not file.exists():
            with read_quickly():
                file.write_text(json.dumps(TaskManager().task_index))
    known, index, stock = json.loads(file.read_text()), TaskManager._get_task_and_group, Path(tasks.__file__).parent

    def find(manager, folder):
        return dict(known) if Path(folder) == stock else index(manager, folder)

    TaskManager._get_task_and_group = find


@contextmanager
def read_quickly():
    """Have the index read its 2,000 files with libyaml, in a sixth of the time; it looks at none of their functions."""
    plain = yaml.full_load
    yaml.full_load = functools.partial(yaml.load, Loader=QuickLoader)
    try:
        yield
    finally:
        yaml.full_load = plain


class QuickLoader(yaml.CFullLoader):
    pass


QuickLoader.add_constructor("!function", lambda loader, node: None)


_status = [0]


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _leave(_):
    """End the process in front of what was registered before it: that frees what was imported."""
    ctypes.CDLL(None).fflush(None)
    os._exit(_status[0])


def end(status):
    """End as the interpreter does, but do not free what was imported, which takes as long as a whole program."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    _status[0] = status
    ctypes.CDLL(None).exit(status)  # calls what the program has registered with the C library, and then `_leave`


def keep_what_was_imported():
    """Let programs neither collect nor finalise what this process has imported when they end."""
    gc.freeze()
    for finalizer in weakref.finalize._registry:
        finalizer.atexit = False


def import_late():
    for name in LATE_IMPORTS:
        with suppress(ImportError):  # another version of lmms-eval may need it no more
            import_module(name)


if __name__ == "__main__":
    import_late()
    get_checkpoint_conversion_mapping("llava")  # makes a table that every model needs
    unrecognised(), untested_versions()  # what both read of installed packages is cached
    keep_what_was_imported()
    program = listen(int(sys.argv[1]))
    if program is not None:
        ctypes.CDLL(None).__cxa_atexit(ctypes.cast(_leave, ctypes.c_void_p), None, None)
        try:
            become(program)
        except SystemExit as ending:
            if isinstance(ending.code, str):
                sys.stderr.write(f"{ending.code}\n")
            end(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
        except BaseException:  # noqa: BLE001 - as at the end of any program
            traceback.print_exc()
            end(1)
        end(0)
