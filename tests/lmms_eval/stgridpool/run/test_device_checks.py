"""GPUs are counted by torch, which is imported only where a driver may have some."""

import torch

from lmms_eval_stgridpool.run import device_checks


def test_gpus_are_those_that_torch_sees(monkeypatch):
    assert device_checks.count_gpus() == torch.cuda.device_count()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr(device_checks, "_has_driver", lambda: True)
    assert device_checks.count_gpus() == 3
    monkeypatch.setattr(device_checks, "_has_driver", lambda: False)
    assert device_checks.count_gpus() == 0


def test_a_driver_is_a_library_of_nvidia_or_a_device_of_amd(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(device_checks, "_AMD", tmp_path / "kfd")
    monkeypatch.setattr(device_checks, "_NVIDIA", "libno_such_library.so.1")
    assert not device_checks._has_driver()
    (tmp_path / "kfd").touch()
    assert device_checks._has_driver()
    (tmp_path / "kfd").unlink()
    monkeypatch.setattr(device_checks, "_NVIDIA", None)  # the program itself, which can be opened
    assert device_checks._has_driver()
    monkeypatch.setattr(device_checks, "_NVIDIA", "libno_such_library.so.1")
    monkeypatch.setattr("sys.platform", "win32")
    assert device_checks._has_driver()
