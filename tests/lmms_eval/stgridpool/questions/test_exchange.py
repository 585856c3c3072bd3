"""Questions change places between processes."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

WORKER = """
import json, os, sys
from datetime import timedelta
sys.path.insert(0, {tests!r})
from test_schedule import job
from torch import distributed
from lmms_eval_stgridpool.questions.exchange import Exchange
world, folder = 3, {folder!r}

def work(rank):
    distributed.init_process_group("gloo", init_method="file://" + folder + "/store", rank=rank, world_size=world)
    asked = 6 if rank != 1 else 0
    videos = [("v%d" % ((i * world + rank) // 3),) for i in range(asked)]
    mine = [job(rank, i, videos[i], 10, "known" if i else "only%d" % rank) for i in range(asked)]
    exchange = Exchange(rank, world, timedelta(hours=1))
    dealt = exchange.scatter(mine, {{"known", "only%d" % rank}})
    answers = exchange.return_answers([(one, [one.owner, one.request.position, rank]) for one in dealt])
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
def ranks(tmp_path_factory, run_python):
    """What three processes were dealt, what came back, and the error of gathering again, which the first one does not.

    The second one is asked nothing.
    """
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER.format(tests=str(Path(__file__).parent), folder=str(folder)))
    done = run_python(folder / "worker.py")
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
def test_processes_share_one_long_video_and_10_short_ones(evaluate, tmp_path):
    """The frames are so small, and so few of them are sampled, that the long one counts little more than another."""
    assert evaluate("one_long_video", 2, resume_dir=tmp_path).statuses == [0, 0]
    assert sorted(len(file.read_text().splitlines()) for file in tmp_path.glob("*.jsonl")) == [5, 6]


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


def test_the_response_cache_of_the_tests_belongs_to_no_commit(run_python):
    """Otherwise a commit between two runs, in the repository around .venv, would invalidate all cached answers."""
    code = "from lmms_eval.utils import get_lmms_eval_cache_version; print(get_lmms_eval_cache_version())"
    assert run_python("-c", code).stdout.split() == [version("lmms_eval")]
