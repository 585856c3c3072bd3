"""Which rank answers a question, and in which order a rank answers."""

import os

import av
import pytest

from lmms_eval_stgridpool.questions.requests import Request
from lmms_eval_stgridpool.questions.schedule import (
    QUESTION_COST,
    VIDEO_COST,
    Job,
    assign_ranks,
    decoding_work,
    in_batches,
    in_video_order,
    videos_in_order,
)


def job(owner, position, videos, decoding=10, task="t"):
    request = Request("generate_until", position, f"Q{position}?", {}, position, task, "test")
    return Job(owner, request, "", videos, decoding)


def load(jobs, ranks, world_size):
    """Work of each rank; a video counts once."""
    decoding = [{} for _ in range(world_size)]
    questions = [0] * world_size
    for one, rank in zip(jobs, ranks, strict=True):
        decoding[rank][one.videos] = one.decoding + VIDEO_COST
        questions[rank] += 1
    return [sum(decoding[r].values()) + QUESTION_COST * questions[r] for r in range(world_size)]


def test_a_video_stays_together():
    jobs = [job(index % 3, index, (f"v{index // 3}.mp4",)) for index in range(12)]
    ranks = assign_ranks(jobs, [{"t"}] * 3)
    for video in range(4):
        assert len(set(ranks[3 * video : 3 * video + 3])) == 1
    assert set(ranks) == {0, 1, 2}


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_end_within_the_longest_video_of_each_other(world_size):
    longest = 8000
    lengths = [longest, *range(300, 3300, 100)]  # one long video and 30 short ones
    jobs = [job(0, 3 * i + q, (f"v{i}",), frames) for i, frames in enumerate(lengths) for q in range(3)]
    work = load(jobs, assign_ranks(jobs, [{"t"}] * world_size), world_size)
    assert max(work) - min(work) < longest + VIDEO_COST + 3 * QUESTION_COST


def test_every_rank_computes_the_same_schedule_and_questions_without_videos_spread():
    jobs = [job(0, index, None, 0) for index in range(8)]
    assert sorted(assign_ranks(jobs, [{"t"}] * 2)) == [0] * 4 + [1] * 4
    assert assign_ranks(jobs, [{"t"}] * 2) == assign_ranks(list(jobs), [{"t"}] * 2)
    assert assign_ranks([], [{"t"}] * 3) == []


def test_only_ranks_that_know_a_task_get_its_questions():
    small = [job(owner, owner, ("v",), task="small") for owner in (1, 2)]
    large = [job(0, index, (f"w{index}",), task="large") for index in range(6)]
    ranks = assign_ranks([*small, *large], [{"large"}, {"small", "large"}, {"small", "large"}])
    assert ranks[0] == ranks[1] != 0
    assert sorted(ranks[2:].count(rank) for rank in range(3)) == [1, 2, 3]


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


def test_questions_about_one_video_follow_each_other():
    keys = [("a",), ("b",), None, ("a",), None, ("b",), ("c",)]
    ordered = in_video_order([job(0, index, videos) for index, videos in enumerate(keys)])
    assert [one.request.position for one in ordered] == [0, 3, 1, 5, 2, 4, 6]
    assert in_video_order([]) == []


def test_the_order_of_videos_follows_that_of_the_questions():
    keys = [("a", "b"), ("a", "b"), None, ("c",), ("c",), ("a", "b")]
    jobs = [job(0, index, videos) for index, videos in enumerate(keys)]
    assert [path.name for path in videos_in_order(jobs)] == ["a", "b", "c", "a", "b"]
