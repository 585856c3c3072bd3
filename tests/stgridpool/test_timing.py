"""Seconds by stage."""

import pytest
import torch

from stgridpool.timing import StageTimer


def test_sums_by_name_in_order(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    timer = StageTimer("cpu")
    for name in ("decode", "vision", "decode"):
        with timer.stage(name):
            pass
    assert list(timer.seconds().items()) == [("decode", 5.0), ("vision", 2.0)]


def test_counts_a_stage_that_fails():
    timer = StageTimer(torch.device("cpu"))
    with pytest.raises(KeyError), timer.stage("vision"):
        raise KeyError
    assert "vision" in timer.seconds()


def test_adds_what_was_measured_elsewhere():
    timer = StageTimer("cpu")
    timer.add("prefill", 1.5)
    timer.add("prefill", 0.5)
    assert timer.seconds() == {"prefill": 2.0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_events():
    timer = StageTimer("cuda")
    with timer.stage("matmul"):
        a = torch.randn(4096, 4096, device="cuda")
        a @ a
    assert timer.seconds()["matmul"] > 0
