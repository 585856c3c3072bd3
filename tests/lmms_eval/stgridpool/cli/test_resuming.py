"""Ctrl-C ends with one line that says what is kept, on one process and on several."""

import os
import signal
import sys
import time

import psutil
import pytest
import typer
from torch.distributed.elastic.multiprocessing.api import SignalException
from typer.testing import CliRunner

from lmms_eval_stgridpool.cli.app import app
from lmms_eval_stgridpool.cli.launching import LAUNCHED
from lmms_eval_stgridpool.cli.resuming import resumable
from lmms_eval_stgridpool.comparison.sweeping import Sweep
from lmms_eval_stgridpool.reproduction.running import start_run
from lmms_eval_stgridpool.run import quiet_launch
from processes import left_running

LONG = 300  # seconds until a test gives up
RANK = """
import os, runpy, threading
from pathlib import Path
from lmms_eval_stgridpool.cli import app

def wait():
    Path(f"{os.getpid()}.tmp").touch()
    Path(f"{os.getpid()}.tmp").rename(f"{os.getpid()}.ready")
    threading.Event().wait()

app.main = wait
runpy.run_module("lmms_eval_stgridpool.cli", run_name="__main__")
"""


def interrupted(*words):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("more", "folder"), [([], "out/answers"), (["--model_args", "pretrained=x,resume_dir=mine"], "mine")]
)
def test_a_stopped_sweep_says_what_is_kept(monkeypatch, more, folder):
    monkeypatch.setattr(Sweep, "run", interrupted)
    monkeypatch.setattr("lmms_eval_stgridpool.cli.runs.check_first", lambda name, check: None)
    words = ["sweep", "nsp", "--tasks", "quiz", "--model_args", "pretrained=x", "-o", "out", *more]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.splitlines()[-1] == (
        f"stgridpool sweep: stopped: all answers so far are kept in {folder}; give the same command again to resume"
    )


def test_a_stopped_reproduction_says_what_is_kept(monkeypatch):
    monkeypatch.setattr("lmms_eval_stgridpool.reproduction.running.run_all", interrupted)
    result = CliRunner().invoke(app, ["reproduce", "st_gridpool/main", "-o", "out"])
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "stgridpool reproduce: stopped: finished runs and all answers so far are kept in out; "
        "give the same command again to resume"
    )


def test_of_several_ranks_the_first_says_what_is_kept(monkeypatch, capsys):
    for rank in "0", "1":
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(typer.Exit), resumable("extract", "features are kept"):
            raise KeyboardInterrupt
    line = "stgridpool extract: stopped: features are kept; give the same command again to resume"
    assert capsys.readouterr().err == f"\n{line}\n"


def test_a_run_of_a_table_may_end_before_the_command_does(monkeypatch):
    """A shell needs time to end its processes and to say what is kept."""
    waits = []

    class Run:
        def __init__(self, *words, **options):
            pass

        def wait(self):
            waits.append(len(waits))
            if len(waits) == 1:
                raise KeyboardInterrupt
            return 130

    monkeypatch.setattr("subprocess.Popen", Run)
    with pytest.raises(KeyboardInterrupt):
        start_run(["eval"], None)
    assert waits == [0, 1]


@pytest.mark.slow
def test_several_processes_end_with_one_line(tmp_path, start_programs):
    """Without a traceback; a terminal's Ctrl-C reaches the launcher alone, which passes it on."""
    (tmp_path / "rank.py").write_text(RANK)
    command = ["-m", "lmms_eval_stgridpool.run.quiet_launch", "what is kept", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    run = start_programs([*command, "-m", "rank", LAUNCHED], cwd=tmp_path)
    while len(ranks := list(tmp_path.glob("*.ready"))) < 2:
        assert psutil.pid_exists(run.processes[0])
        time.sleep(0.01)
    started = [psutil.Process(int(file.stem)) for file in ranks]
    os.kill(run.processes[0], signal.SIGINT)
    assert run.wait().statuses == [130]
    alive = left_running(started, LONG)
    for one in alive:
        one.kill()
    assert not alive
    said = run.logs[0][1].read_text()
    assert "Traceback" not in said
    assert said.endswith("what is kept\n")


@pytest.mark.parametrize(("line", "said"), [("what is kept", "what is kept\n"), ("", "")])
def test_the_launcher_says_what_its_caller_wants(monkeypatch, capsys, line, said):
    def interrupted():
        assert sys.argv == ["quiet_launch", "--multi_gpu"]
        raise SignalException("interrupted", signal.SIGINT)

    monkeypatch.setattr(quiet_launch.launch, "main", interrupted)
    monkeypatch.setattr(sys, "argv", ["quiet_launch", line, "--multi_gpu"])
    with pytest.raises(SystemExit) as ending:
        quiet_launch.main()
    assert ending.value.code == 130
    assert capsys.readouterr() == ("", said)
