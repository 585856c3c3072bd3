"""Questions change places between processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

from lmms_eval_stgridpool.questions.exchange import QUESTION_COST, VIDEO_COST, Job, deal, decoding_work, in_batches
from lmms_eval_stgridpool.questions.requests import Request


def job(owner, position, videos, decoding=10, task="t"):
    request = Request("generate_until", position, f"Q{position}?", {}, position, task, "test")
    return Job(owner, request, "", videos, decoding)


def load(jobs, processes, world_size):
    """Work of each process, a video counted once."""
    decoding = [{} for _ in range(world_size)]
    questions = [0] * world_size
    for one, process in zip(jobs, processes, strict=True):
        decoding[process][one.videos] = one.decoding + VIDEO_COST
        questions[process] += 1
    return [sum(decoding[r].values()) + QUESTION_COST * questions[r] for r in range(world_size)]


def test_a_video_stays_together():
    jobs = [job(index % 3, index, (f"v{index // 3}.mp4",)) for index in range(12)]
    processes = deal(jobs, [{"t"}] * 3)
    for video in range(4):
        assert len(set(processes[3 * video : 3 * video + 3])) == 1
    assert set(processes) == {0, 1, 2}


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_processes_end_within_the_longest_video_of_each_other(world_size):
    longest = 8000
    lengths = [longest, *range(300, 3300, 100)]  # one long video and 30 short ones
    jobs = [job(0, 3 * i + q, (f"v{i}",), frames) for i, frames in enumerate(lengths) for q in range(3)]
    work = load(jobs, deal(jobs, [{"t"}] * world_size), world_size)
    assert max(work) - min(work) < longest + VIDEO_COST + 3 * QUESTION_COST


def test_every_process_deals_alike_and_questions_without_videos_spread():
    jobs = [job(0, index, None, 0) for index in range(8)]
    assert sorted(deal(jobs, [{"t"}] * 2)) == [0] * 4 + [1] * 4
    assert deal(jobs, [{"t"}] * 2) == deal(list(jobs), [{"t"}] * 2)
    assert deal([], [{"t"}] * 3) == []


def test_only_processes_that_know_a_task_get_its_questions():
    small = [job(owner, owner, ("v",), task="small") for owner in (1, 2)]
    large = [job(0, index, (f"w{index}",), task="large") for index in range(6)]
    processes = deal([*small, *large], [{"large"}, {"small", "large"}, {"small", "large"}])
    assert processes[0] == processes[1] != 0
    assert sorted(processes[2:].count(process) for process in range(3)) == [1, 2, 3]


def test_decoding_work_is_the_size_of_the_file_which_is_not_opened(tmp_path):
    path = tmp_path / "v.mp4"
    with path.open("wb") as file:
        file.truncate(3_600_000)  # as many bytes as 360 frames of 1280x720 usually take
    path.chmod(0)
    assert decoding_work(str(path), 64) == 360
    assert decoding_work(str(path), 2) == 2 * 125  # frames that no sampled one depends on are not decoded
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing.mp4", "", "a\0b"):
        assert decoding_work(str(tmp_path / name), 64) == 0


def test_no_rank_opens_a_video(clips, monkeypatch):
    monkeypatch.setattr(av, "open", None)
    assert decoding_work(str(clips / "v1.mp4"), 64) == pytest.approx((clips / "v1.mp4").stat().st_size / 10_000)
    assert decoding_work(str(clips / "broken.mp4"), 64) > 0


def test_neighbours_about_one_video_are_a_batch():
    names = [("a",), ("a",), ("a",), ("b",), None, None, ("a",), ("a", "b"), ("a", "b")]
    jobs = [job(0, index, videos) for index, videos in enumerate(names)]
    positions = [[one.request.position for one in batch] for batch in in_batches(jobs, 2)]
    assert positions == [[0, 1], [2], [3], [4], [5], [6], [7], [8]]
    assert [len(batch) for batch in in_batches(jobs, 1)] == [1] * 9


WORKER = """
import json, os, sys
from datetime import timedelta
sys.path.insert(0, {tests!r})
from test_exchange import job
from torch import distributed
from lmms_eval_stgridpool.questions.exchange import Exchange
world, folder = 3, {folder!r}

def work(rank):
    distributed.init_process_group("gloo", init_method="file://" + folder + "/store", rank=rank, world_size=world)
    asked = 6 if rank != 1 else 0
    videos = [("v%d" % ((i * world + rank) // 3),) for i in range(asked)]
    mine = [job(rank, i, videos[i], 10, "known" if i else "only%d" % rank) for i in range(asked)]
    exchange = Exchange(rank, world, timedelta(hours=1))
    dealt = exchange.trade(mine, {{"known", "only%d" % rank}})
    answers = exchange.give_back([(one, [one.owner, one.request.position, rank]) for one in dealt])
    error = None
    if rank != 0:
        exchange._progress._timeout = timedelta(seconds=1)
        try:
            exchange.gather(None)
        except RuntimeError as caught:
            error = str(caught)
    with open(folder + "/%d.json" % rank, "w") as file:
        json.dump([
            [[one.owner, one.request.position, one.request.task, one.videos] for one in dealt],
            [[one.owner, one.request.position, answer] for one, answer in answers],
            error,
        ], file)
    distributed.barrier()

processes = []
for rank in range(world):  # forked, as importing takes the most time
    processes.append(os.fork())
    if processes[-1] == 0:
        work(rank)
        os._exit(0)
sys.exit(max(os.waitpid(process, 0)[1] for process in processes))
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What three processes were dealt, what came back, and the error of gathering again, which the first one does not.

    The second one is asked nothing.
    """
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER.format(tests=str(Path(__file__).parent), folder=str(folder)))
    done = subprocess.run(
        [sys.executable, str(folder / "worker.py")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.slow
def test_answers_come_back_to_where_they_were_asked(ranks):
    for rank, (_, answers, _) in enumerate(ranks):
        assert sorted(position for _, position, _ in answers) == ([] if rank == 1 else list(range(6)))
        assert all(owner == answer[0] == rank and position == answer[1] for owner, position, answer in answers)
    videos = {}
    for rank, (dealt, _, _) in enumerate(ranks):
        for owner, _, task, names in dealt:
            assert task == "known" or owner == rank  # a task that others do not know stays
            if task == "known":
                videos.setdefault(tuple(names), set()).add(rank)
    assert all(len(where) == 1 for where in videos.values())
    assert any(dealt for dealt, _, _ in ranks[1:2])  # the process that was asked nothing helps


@pytest.mark.slow
def test_a_rank_that_never_comes_is_named(ranks):
    error_of_absent, *errors = (error for _, _, error in ranks)
    assert error_of_absent is None
    for rank, error in enumerate(errors, start=1):
        assert f"rank {rank} waited at a barrier for rank 0" in error


@pytest.mark.slow
def test_processes_share_one_long_video_and_30_short_ones(evaluate, tmp_path):
    """The frames are so small, and so few of them are sampled, that the long one counts little more than another."""
    assert evaluate("one_long_video", 2, resume_dir=tmp_path).statuses == [0, 0]
    assert sorted(len(file.read_text().splitlines()) for file in tmp_path.glob("*.jsonl")) == [15, 16]


@pytest.mark.slow
def test_a_response_cache_that_knows_all_answers_of_a_process_does_not_stop_the_others(evaluate, tmp_path):
    cached = {"use_cache": str(tmp_path), "allow_use_cache": True}
    assert evaluate("clips", limit=1, **cached).statuses == [0]
    two = evaluate("clips", 2, limit=2, **cached)  # the first process is never called
    assert two.statuses == [0, 0]
    assert "--use_cache is on" in two.messages[1]
    assert "--use_cache is on" not in two.messages[0]
    answers = [sample["filtered_resps"] for sample in evaluate("clips", limit=2).samples.values()]
    assert [two.samples["clips", document]["filtered_resps"] for document in range(2)] == answers
