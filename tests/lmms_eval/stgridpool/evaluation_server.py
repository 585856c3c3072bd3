"""Runs lmms-eval on real processes that begin at once: everything is imported before they are forked.

Each line of its input is a run, a JSON object: `num_processes`; `output`, a folder, which gets `results.json` and each
process's messages; `evaluation`, arguments of lmms-eval's `simple_evaluate`; `command_line`, what it finds there, or
None; `include_path`, a folder of tasks; and `kill`, None or when all processes are killed: `delay` seconds after the
journals in `folder` hold `answers` answers.
Each line of its output is what became of a run: `statuses`, one per process, and `peak`, the most memory of one in MiB.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from argparse import Namespace
from pathlib import Path

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

import lmms_eval_stgridpool.llava_video  # noqa: F401 - the point is to have it imported


def serve():
    for line in sys.stdin:
        run = json.loads(line)
        Path(run["output"]).mkdir(parents=True, exist_ok=True)
        port = free_port()
        processes = [start(run, rank, port) for rank in range(run["num_processes"])]
        if run["kill"] is not None:
            kill(processes, run["kill"])
        ended = [os.wait4(process, 0) for process in processes]
        statuses = [os.waitstatus_to_exitcode(status) for _, status, _ in ended]
        peak = max(usage.ru_maxrss for _, _, usage in ended) / 1024
        print(json.dumps({"statuses": statuses, "peak": peak}), flush=True)  # noqa: T201


def start(run, rank, port):
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        log = os.open(Path(run["output"]) / f"rank{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        evaluate(run, rank, port)
        status = 0
    except SystemExit as error:
        status = error.code
    except Exception:  # noqa: BLE001 - as at the end of any program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def evaluate(run, rank, port):
    if run["num_processes"] > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(run["num_processes"])}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    manager = TaskManager(include_path=run["include_path"], include_defaults=False, model_name="llava_video")
    command_line = Namespace(process_with_media=False, **run["command_line"]) if run["command_line"] else None
    results = simple_evaluate("llava_video", task_manager=manager, cli_args=command_line, **run["evaluation"])
    if rank == 0:
        unfinished = Path(run["output"]) / "unfinished"
        unfinished.write_text(json.dumps(results, default=repr))
        unfinished.rename(unfinished.with_name("results.json"))  # whole, or not there: the process may be killed


def kill(processes, when):
    while num_answers(when["folder"]) < when["answers"] and not any(map(has_ended, processes)):
        time.sleep(0.002)
    time.sleep(when["delay"])
    for process in processes:
        os.kill(process, signal.SIGKILL)


def num_answers(folder):
    return sum(file.read_bytes().count(b"\n") for file in Path(folder).glob("*.jsonl"))


def has_ended(process):
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


if __name__ == "__main__":
    serve()
