from types import SimpleNamespace

import pytest
import torch

from lmms_eval_stgridpool.run import placement
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments


@pytest.fixture
def placed(monkeypatch):
    """Function that places process `rank` of `num_processes`, to which accelerate gives `given`."""

    def place(given, num_processes=1, rank=0, **arguments):
        accelerator = SimpleNamespace(
            num_processes=num_processes, process_index=rank, local_process_index=rank % 8, device=torch.device(given)
        )
        monkeypatch.setattr(placement, "Accelerator", lambda: accelerator)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        return placement.place(LlavaArguments(pretrained="x", **arguments))

    return place


@pytest.mark.parametrize(
    ("arguments", "device", "device_map"),
    [
        ({}, "cuda:0", "cuda:0"),
        ({"device": "cuda:3"}, "cuda:3", "cuda:3"),
        ({"device_map": "cuda:2"}, "cuda:2", "cuda:2"),
        ({"device_map": "auto"}, "cuda:0", "auto"),
        ({"device_map": "auto", "device": "cuda:1"}, "cuda:1", "auto"),
        ({"device": "cpu"}, "cpu", "cpu"),
    ],
)
def test_a_single_process_goes_where_it_is_told(placed, arguments, device, device_map):
    found = placed("cuda:0", **arguments)
    assert (found.device, found.device_map) == (torch.device(device), device_map)
    assert found.dtype == (torch.float32 if device == "cpu" else torch.float16)


@pytest.mark.parametrize("arguments", [{}, {"device": "cuda"}, {"device_map": "cuda:0"}])
def test_several_processes_take_their_devices_from_accelerate(placed, arguments):
    found = placed("cuda:3", num_processes=16, rank=11, **arguments)  # the fourth process of the second machine
    assert (found.rank, found.world_size) == (11, 16)
    assert (found.device, found.device_map) == (torch.device("cuda:3"), "cuda:3")


@pytest.mark.parametrize("name", ["device", "device_map"])
def test_several_processes_take_no_other_kind_of_device(placed, name):
    with pytest.raises(ValueError, match=r"device cpu differs from accelerate's cuda; .* ACCELERATE_USE_CPU=true"):
        placed("cuda:1", num_processes=2, rank=1, **{name: "cpu"})


@pytest.mark.parametrize("name", ["device", "device_map"])
def test_a_device_that_is_not_there_is_refused_before_loading(placed, name):
    with pytest.raises(ValueError, match="there is no device cuda:4: torch sees 4 GPUs"):
        placed("cuda:0", **{name: "cuda:4"})


def test_several_processes_cannot_share_a_spread_model(placed):
    with pytest.raises(ValueError, match="device_map=auto is for a single process, not 2: leave it out"):
        placed("cuda:1", num_processes=2, device_map="auto")


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_the_dtype_asked_for_holds_on_every_device(placed, name):
    assert placed("cpu", torch_dtype=name).dtype == placed("cuda:0", torch_dtype=name).dtype == getattr(torch, name)
