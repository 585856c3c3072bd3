"""Processes end with the launcher that started them. Nothing here waits for a time to pass, only for events."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from processes import left_running

IMPORTS = """
import os, sys, threading, time
from lmms_eval_stgridpool.run.launcher import end_with_launcher
parent = os.getppid()
"""
READY = """
with open(os.path.join(sys.argv[1], f"{os.getpid()}.tmp"), "w"):
    pass
os.rename(os.path.join(sys.argv[1], f"{os.getpid()}.tmp"), os.path.join(sys.argv[1], f"{os.getpid()}.ready"))
"""
ORPHANED = """
while os.getppid() == parent:
    time.sleep(0.01)
"""
END = """
end_with_launcher()
"""
WAIT = """
threading.Event().wait()
"""
RANK = IMPORTS + END + READY + WAIT
LAUNCHER = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]]).wait()"
LONG = 300  # seconds until a test gives up


@pytest.fixture
def launch(tmp_path):
    """Function that starts ranks with a command, and returns the command's process and theirs once all are ready."""
    script, ready = tmp_path / "rank.py", tmp_path / "ready"
    ready.mkdir()
    started = []

    def launch(*command, ranks=1, program=RANK, **environment):
        script.write_text(program)
        command = [sys.executable, *command, str(script), str(ready)]
        process = subprocess.Popen(command, env=os.environ | environment)
        started.append(psutil.Process(process.pid))
        while len(found := list(ready.glob("*.ready"))) < ranks:
            assert process.poll() is None
            time.sleep(0.01)
        started.extend(psutil.Process(int(file.stem)) for file in found)
        return process, started[1:]

    yield launch
    for process in started:
        if process.is_running():
            process.kill()


def stand_in(folder, name):
    path = Path(folder, name)
    path.write_text(LAUNCHER)
    return str(path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_single_process_of_accelerate_ends_with_it(launch, tmp_path, how):
    launcher, ranks = launch(stand_in(tmp_path, "accelerate"))
    launcher.send_signal(how)
    launcher.wait(LONG)
    alive = left_running(ranks, LONG)
    assert not alive


@pytest.mark.parametrize("variable", ["ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"])
def test_a_process_that_imports_while_its_launcher_ends_ends_as_soon_as_it_can(launch, tmp_path, variable):
    launcher, [rank] = launch(
        stand_in(tmp_path, "accelerate"), program=IMPORTS + READY + ORPHANED + END + WAIT, **{variable: "no"}
    )
    launcher.kill()
    launcher.wait(LONG)
    if rank.is_running() and rank.ppid() != 1 and psutil.Process(rank.ppid()).name() != "systemd":
        pytest.skip("orphans are adopted by an unusual process here")
    alive = left_running([rank], LONG)
    assert not alive


def test_a_process_that_no_launcher_started_goes_on(launch, tmp_path):
    shell, [rank] = launch(stand_in(tmp_path, "shell"))
    shell.kill()
    shell.wait(LONG)
    while rank.ppid() == shell.pid:
        time.sleep(0.01)
    assert rank.is_running()
    assert rank.status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_rank_ends_with_accelerate_that_is_killed(launch):
    launcher, ranks = launch("-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--cpu")
    launcher.kill()
    launcher.wait(LONG)
    alive = left_running(ranks, LONG)
    assert not alive


@pytest.mark.slow
def test_ranks_end_with_torchrun_that_is_killed(start_programs, tmp_path):
    """torchrun is known by what it sets, accelerate by its command: it cannot be forked."""
    (tmp_path / "rank.py").write_text(RANK)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "rank.py", tmp_path]
    started = start_programs(command)
    while len(ready := list(tmp_path.glob("*.ready"))) < 2:
        assert psutil.pid_exists(started.processes[0])
        time.sleep(0.01)
    ranks = [psutil.Process(int(file.stem)) for file in ready]
    os.kill(started.processes[0], signal.SIGKILL)
    assert started.wait().statuses == [-signal.SIGKILL]
    alive = left_running(ranks, LONG)
    for rank in alive:
        rank.kill()
    assert not alive


def test_a_check_ends_with_the_process_that_waits_for_it(environment):
    code = """
import os, threading
from lmms_eval_stgridpool.run.without_torch import run_without_torch
def check():
    print(os.getpid(), flush=True)
    threading.Event().wait()
run_without_torch(check)
"""
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as waiting:
        checking = psutil.Process(int(waiting.stdout.readline()))
        waiting.terminate()
        alive = left_running([checking], LONG)
        for one in alive:
            one.kill()
    assert not alive
