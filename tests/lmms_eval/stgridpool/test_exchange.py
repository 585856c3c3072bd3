"""Questions change places between processes."""

import json
import os
import subprocess
import sys

import pytest

from lmms_eval_stgridpool.exchange import QUESTION_COST, Job, deal, declared_frames, in_batches
from lmms_eval_stgridpool.requests import Request


def job(owner, position, videos, frames=10, task="t"):
    request = Request("generate_until", position, f"Q{position}?", {}, position, task, "test")
    return Job(owner, request, "", videos, frames)


def load(jobs, processes, world_size):
    """Frames and questions of each process, a video counted once."""
    frames = [{} for _ in range(world_size)]
    questions = [0] * world_size
    for one, process in zip(jobs, processes, strict=True):
        frames[process][one.videos] = one.frames
        questions[process] += 1
    return [sum(frames[r].values()) + QUESTION_COST * questions[r] for r in range(world_size)]


def test_a_video_stays_together():
    jobs = [job(index % 3, index, (f"v{index // 3}.mp4",)) for index in range(12)]
    processes = deal(jobs, 3)
    for video in range(4):
        assert len(set(processes[3 * video : 3 * video + 3])) == 1
    assert set(processes) == {0, 1, 2}


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_processes_end_within_the_longest_video_of_each_other(world_size):
    lengths = [100_000, *range(300, 3300, 100)]  # one long video and 30 short ones
    jobs = [job(0, 3 * i + q, (f"v{i}",), frames) for i, frames in enumerate(lengths) for q in range(3)]
    work = load(jobs, deal(jobs, world_size), world_size)
    assert max(work) - min(work) <= 100_000 + 3 * QUESTION_COST
    others = sorted(work)[:-1]  # the one with the long video has little else
    if len(others) > 1:
        assert others[-1] - others[0] <= 3300 + 3 * QUESTION_COST


def test_every_process_deals_alike_and_questions_without_videos_spread():
    jobs = [job(0, index, None, 0) for index in range(8)]
    assert sorted(deal(jobs, 2)) == [0] * 4 + [1] * 4
    assert deal(jobs, 2) == deal(list(jobs), 2)
    assert deal([], 3) == []


def test_declared_frames(clips, tmp_path):
    assert declared_frames(str(clips / "v0.mp4")) == 40
    assert declared_frames(str(clips / "broken.mp4")) == 0
    assert declared_frames(str(tmp_path / "missing.mp4")) == 0


def test_neighbours_about_one_video_are_a_batch():
    names = [("a",), ("a",), ("a",), ("b",), None, None, ("a",), ("a", "b"), ("a", "b")]
    jobs = [job(0, index, videos) for index, videos in enumerate(names)]
    positions = [[one.request.position for one in batch] for batch in in_batches(jobs, 2)]
    assert positions == [[0, 1], [2], [3], [4], [5], [6], [7], [8]]
    assert [len(batch) for batch in in_batches(jobs, 1)] == [1] * 9


WORKER = """
import json, os, sys
from accelerate import Accelerator
accelerator = Accelerator()
sys.path.insert(0, {tests!r})
from test_exchange import job
from lmms_eval_stgridpool.exchange import give_back, trade
rank, world = accelerator.process_index, accelerator.num_processes
mine = [job(rank, i, ("v%d" % ((i * world + rank) // 3),), 10, "known" if i else "only%d" % rank) for i in range(6)]
if rank == 1:
    mine = []
dealt = trade(mine, {{"known", "only%d" % rank}}, rank, world)
answers = give_back([(one, [one.owner, one.request.position, rank]) for one in dealt], rank)
open(os.path.join({out!r}, "%d.json" % rank), "w").write(json.dumps([
    [[one.owner, one.request.position, one.request.task, one.videos] for one in dealt],
    [[one.owner, one.request.position, answer] for one, answer in answers],
]))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


@pytest.mark.slow
def test_answers_come_back_to_where_they_were_asked(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(tests=str(__file__).rsplit("/", 1)[0], out=str(tmp_path)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "3"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    for rank, (_, answers) in enumerate(ranks):
        assert sorted(position for _, position, _ in answers) == ([] if rank == 1 else list(range(6)))
        assert all(owner == answer[0] == rank and position == answer[1] for owner, position, answer in answers)
    videos = {}
    for rank, (dealt, _) in enumerate(ranks):
        for owner, _, task, names in dealt:
            assert task == "known" or owner == rank  # a task that others do not know stays
            if task == "known":
                videos.setdefault(tuple(names), set()).add(rank)
    assert all(len(where) == 1 for where in videos.values())
    assert any(dealt for dealt, _ in ranks[1:2])  # the process that was asked nothing helps
