"""GPUs are those that torch sees; it is imported only where a driver may have some and cannot tell."""

from types import SimpleNamespace

import pytest
import torch

from lmms_eval_stgridpool.run import device_checks


def test_gpus_are_those_that_torch_sees(monkeypatch):
    assert device_checks.count_gpus() == torch.cuda.device_count()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr(device_checks, "_has_driver", lambda: True)
    monkeypatch.setattr(device_checks, "_count_by_driver", lambda: None)
    assert device_checks.count_gpus() == 3
    monkeypatch.setattr(device_checks, "_count_by_driver", lambda: 0)
    assert device_checks.count_gpus() == 0
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


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """NVIDIA's driver in a machine with two GPUs, and torch built for CUDA; `statuses` are those of its functions."""

    def count_devices(found):
        found._obj.value = 2
        return driver.statuses[1]

    library = SimpleNamespace(cuInit=lambda flags: driver.statuses[0], cuDeviceGetCount=count_devices)
    driver = SimpleNamespace(statuses=[0, 0], build=tmp_path / "version.py")
    driver.build.write_text("from typing import Optional\ncuda: Optional[str] = '13.0'\n")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(device_checks, "_AMD", tmp_path / "kfd")
    monkeypatch.setattr(device_checks.ctypes, "CDLL", {"libcuda.so.1": library}.__getitem__)
    package = SimpleNamespace(locate_file={"torch/version.py": driver.build}.__getitem__)
    monkeypatch.setattr(device_checks, "distribution", {"torch": package}.__getitem__)
    return driver


@pytest.mark.parametrize(
    ("statuses", "count"), [([0, 0], 2), ([100, 0], 0), ([3, 0], None), ([0, 3], None)]
)  # 100: none is visible, and 3: not initialised
def test_the_driver_counts_gpus(driver, statuses, count):
    driver.statuses = statuses
    assert device_checks._count_by_driver() == count


def test_torch_counts_gpus_that_are_not_for_its_build_or_not_of_nvidia(driver, tmp_path):
    (tmp_path / "kfd").touch()
    assert device_checks._count_by_driver() is None
    (tmp_path / "kfd").unlink()
    driver.build.write_text("cuda = None\n")
    assert device_checks._count_by_driver() is None
