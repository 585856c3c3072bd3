"""Ranks wait for each other as long as they get on."""

from collections import deque
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from lmms_eval_stgridpool.questions import rank_progress
from lmms_eval_stgridpool.questions.rank_progress import RankProgress


class Network:
    """Messages between ranks of this process, in place of those between processes; nothing more comes in time."""

    def __init__(self):
        self.rank, self.queues, self.waits = 0, {}, []

    def new_group(self, backend):
        assert backend == "gloo"

    def isend(self, data, dst, group):
        self.queues.setdefault((self.rank, dst), deque()).append(data.clone())
        return self

    def irecv(self, data, src, group):
        queue = self.queues.get((src, self.rank))
        if not queue:
            return Late()
        data.copy_(queue.popleft())
        return self

    def wait(self, timeout):
        self.waits.append(timeout)


class Late:
    def wait(self, timeout):
        raise RuntimeError("Timed out waiting 600000ms for recv operation to complete")


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(rank_progress, "distributed", network)
    monkeypatch.setattr(rank_progress, "_SECONDS_BETWEEN_REPORTS", 0)
    return network


def test_a_rank_that_reports_is_waited_for_however_long(network):
    first, second = (RankProgress(rank, 2, timedelta(minutes=10)) for rank in range(2))
    network.rank = 1
    for count in range(1000):
        second.report(f"answered {count} of 1000 questions")
    second._send("reached the barrier", has_arrived=True)
    network.rank = 0
    first.barrier()
    assert set(network.waits) == {timedelta(minutes=10)}
    assert not network.queues[1, 0]  # all has been heard: the next barrier begins anew


def test_a_rank_that_reports_nothing_more_is_named_with_its_last_report(network):
    ranks = [RankProgress(rank, 3, timedelta(minutes=10)) for rank in range(3)]
    network.rank = 1
    ranks[1]._send("reached the barrier", has_arrived=True)
    network.rank = 2
    ranks[2].report("answered 17 of 240 questions")
    network.rank = 0
    with pytest.raises(
        RuntimeError,
        match=r"rank 0 waited at a barrier for rank 2, whose last report was: answered 17 of 240 questions\. Rank 2 "
        r"has ended, or has reported nothing for 600 s; if it is only slow, raise barrier_timeout_s\. Timed out",
    ):
        ranks[0].barrier()


def test_barriers_are_told_apart(network):
    ranks = [RankProgress(rank, 2, timedelta(minutes=10)) for rank in range(2)]
    network.rank = 1
    for _ in range(2):
        ranks[1]._send("reached the barrier", has_arrived=True)
    network.rank = 0
    ranks[0].barrier()
    ranks[0].barrier()
    with pytest.raises(RuntimeError, match="whose last report was: nothing"):
        ranks[0].barrier()


def test_reports_are_sent_once_a_minute_and_cut_to_their_length(network, monkeypatch):
    monkeypatch.setattr(rank_progress, "_SECONDS_BETWEEN_REPORTS", 60)
    now = [100.0]
    monkeypatch.setattr(rank_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    progress = RankProgress(0, 2, timedelta(minutes=10))
    for now[0] in (100.0, 130.0, 160.0, 161.0, 219.0, 221.0):
        progress.report("é" * 1000)
    sent = network.queues[0, 1]
    assert len(sent) == 2
    assert all(message.shape == (256,) and message.dtype == torch.uint8 for message in sent)
