"""Seconds by stage."""

import time

import pytest
import torch

from stgridpool.stage_timer import StageTimer


def test_sums_by_name_in_order():
    timer = StageTimer("cpu")
    for name in ("decode", "vision", "decode"):
        with timer.stage(name):
            time.sleep(0.02)
    seconds = timer.seconds()
    assert list(seconds) == ["decode", "vision"]
    assert 0.04 <= seconds["decode"] < 2
    assert 0.02 <= seconds["vision"] < 1


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
