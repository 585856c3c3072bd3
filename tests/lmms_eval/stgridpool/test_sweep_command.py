"""A sweep on two ranks, killed and continued."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "sweep.py"
NAMES = ("bilinear", "none")


@pytest.mark.slow
def test_a_sweep_killed_on_two_ranks_goes_on_and_answers_as_one_rank_does(
    checkpoint, tasks, start_programs, environments_of_ranks, tmp_path
):
    answers = tmp_path / "answers"

    def start(num_ranks, output, more=""):
        command = [SCRIPT, *NAMES, "--tasks", "clips", "--include_path", tasks, "--output_path", tmp_path / output]
        command += [
            "--model_args",
            f"pretrained={checkpoint},max_frames_num=8,torch_dtype=float32,device=cpu,decode_threads=1{more}",
        ]
        environments = environments_of_ranks(num_ranks)
        return start_programs(*[command] * num_ranks, cwd=tmp_path, environments=environments)

    def finish(started):
        statuses = started.wait().statuses
        assert set(statuses) == {0}, "".join(path.read_text() for logs in started.logs for path in logs)

    finish(start(1, "one"))
    killed = start(2, "killed", f",resume_dir={answers}")
    while not any(b"\n" in journal.read_bytes() for journal in answers.glob("*.jsonl")):
        assert all(map(psutil.pid_exists, killed.processes))
        time.sleep(0.002)
    for process in killed.processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    killed.wait()
    finish(start(2, "two", f",resume_dir={answers}"))
    for name in NAMES:
        assert texts(tmp_path / "two" / name) == texts(tmp_path / "one" / name)
        [record] = (tmp_path / "two" / name).rglob("*_run.json")
        record = json.loads(record.read_text())
        assert record["num_processes"] == 2
        assert record["requests"] + record["resumed_requests"] == 7  # questions of the task
    resumed = [json.loads(file.read_text())["resumed_requests"] for file in (tmp_path / "two").rglob("*_run.json")]
    assert sum(resumed) >= 1


def texts(folder):
    """Answers of a run, by document."""
    [samples] = folder.rglob("*_samples_clips.jsonl")
    return {one["doc_id"]: one["filtered_resps"] for one in map(json.loads, samples.read_text().splitlines())}
