"""Starts Python programs at once: they are forked from this process, which has imported what takes long.

Each line of its input is a JSON list of programs that run beside each other. A program has its `arguments` as behind
`python`, its `cwd`, `environment` and the files `stdout` and `stderr`. The first line of the answer lists their process
IDs; the second one, when all have ended, is an object: their `statuses` and `peak`, the most memory of one in MiB. As
under torchrun, the first program that fails ends the others.
"""

import atexit
import ctypes
import functools
import gc
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from pathlib import Path

import lmms_eval.evaluator  # noqa: F401 - this and the last import are the point
from lmms_eval import tasks
from lmms_eval.tasks import TaskManager
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import lmms_eval_stgridpool.llava_video  # noqa: F401


def serve():
    """Answer until the input ends, except in a process that is to become a program: return this program."""
    for line in sys.stdin:
        processes, programs = [], json.loads(line)
        if any(knows_stock_tasks(program["arguments"]) for program in programs):
            remember_stock_tasks()
        for program in programs:
            if (process := os.fork()) == 0:
                return program
            processes.append(process)
        say(processes)
        say(wait(processes))
    return None


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


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
def remember_stock_tasks():
    """Let programs find the index of lmms-eval's own tasks, which takes seconds to make; those of tests are read."""
    known, index, stock = TaskManager().task_index, TaskManager._get_task_and_group, Path(tasks.__file__).parent

    def find(manager, folder):
        return dict(known) if Path(folder) == stock else index(manager, folder)

    TaskManager._get_task_and_group = find


def end(status):
    """End as the interpreter does, but do not free what was imported, which takes longer than most programs."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).exit(status)  # calls what is registered with the C library


if __name__ == "__main__":
    get_checkpoint_conversion_mapping("llava")  # makes a table that every model needs
    gc.freeze()  # programs that collect garbage look at their own
    program = serve()
    if program is not None:
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
