"""Runs that are killed at any moment, and go on with the same command on any number of processes."""

import json
import os
import random
import signal
import time
from contextlib import suppress

import psutil
import pytest

pytestmark = pytest.mark.slow

ANSWERS = 18  # 7 in free text and 2 choices for each of 7; those about the broken video are never kept
RANDOM = random.Random(20260)
MOMENTS = [(0, RANDOM.uniform(0, 1))]  # while the model is loaded
MOMENTS += [(RANDOM.randrange(ANSWERS), RANDOM.uniform(0, 0.03))]  # while it answers
MOMENTS += [(ANSWERS, RANDOM.uniform(0, 0.3))]  # while the answers are scored


@pytest.fixture(scope="module")
def undisturbed(evaluate):
    return evaluate("clips,clips_choice")


def alike(scores):
    """Equal but for rounding: lmms-eval adds scores up in the order of the processes."""
    return pytest.approx(scores, rel=1e-12)


def names_of_answers(folder):
    """One name for each answer in the journals, whole lines only."""
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_bytes().splitlines(keepends=True)]
    return [json.loads(line)["key"] for line in lines if line.endswith(b"\n")]


def num_lines(folder):
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.jsonl"))


@pytest.mark.parametrize(("moment", "num_processes"), list(zip(MOMENTS, [1, 2, 1], strict=True)))
def test_a_killed_run_goes_on(evaluate, undisturbed, tmp_path, moment, num_processes):
    """On three processes: in test_command_line.py."""
    answers, delay = moment

    def kill(processes):
        while num_lines(tmp_path) < answers and all(map(psutil.pid_exists, processes)):
            time.sleep(0.002)
        time.sleep(delay)
        for how in (signal.SIGSTOP, signal.SIGKILL):  # no process sees another one end
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, how)

    killed = evaluate("clips,clips_choice", 2, resume_dir=tmp_path, kill=kill)
    kept = names_of_answers(tmp_path)
    assert len(kept) >= answers
    assert set(killed.statuses) <= {-9, 0}  # 0: on a busy machine a process may end before the signal comes
    run = evaluate("clips,clips_choice", num_processes, resume_dir=tmp_path)
    assert run.statuses == [0] * num_processes
    assert len(undisturbed.samples) == 14
    assert run.scores == alike(undisturbed.scores)
    assert run.samples == undisturbed.samples
    assert len(names_of_answers(tmp_path)) == len(set(names_of_answers(tmp_path))) == ANSWERS


def test_answers_are_kept_where_their_aggregation_fails(evaluate, tmp_path):
    for num_processes in (2, 1):
        failed = evaluate("clips_bad_end", num_processes, resume_dir=tmp_path)
        assert 1 in failed.statuses
        assert "the server is down" in failed.messages[0]
        assert len(names_of_answers(tmp_path)) == 6  # the second run asks nothing that the first one answered
