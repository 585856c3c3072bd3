"""Checks of a run's devices before anything is loaded."""

from __future__ import annotations

import ctypes
import os
import runpy
import sys
from importlib.metadata import distribution
from pathlib import Path

from lmms_eval_stgridpool.run.arguments import SPREADING, Arguments

_NVIDIA, _AMD = "libcuda.so.1", Path("/dev/kfd")
"""What the drivers put on a Linux machine: a library, and a device for computing."""
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_TRUE = ("y", "yes", "t", "true", "on", "1")  # as accelerate reads its own variables


def check_devices(arguments: Arguments, processes: int | None, machines: int = 1, on_cpu: bool = False) -> int:
    """Check that the devices of a run are there, and return the number of GPUs.

    Args:
        arguments: The arguments of the model.
        processes: Number of processes on all machines; None for the default.
        machines: Number of machines.
        on_cpu: Whether several processes are to run on the CPU in any case.

    Raises:
        ValueError: If a device is not there, or there are more processes than GPUs.
    """
    count = count_gpus()
    for device in (arguments.device, arguments.device_map):
        kind, _, index = (device or "").partition(":")
        if kind == "cuda" and int(index or 0) >= count:
            raise ValueError(
                f"there is no device {device}: torch sees {count} GPUs; leave device out, or set device=cpu"
            )
    here = -(-(processes or 1) // machines)
    if 0 < count < here and not on_cpu and arguments.device != "cpu":
        raise ValueError(f"{here} processes on this machine need as many GPUs, and torch sees {count}: start {count}")
    return count


def check_spreading(arguments: Arguments, processes: int | None) -> None:
    """Check that a model which is spread over GPUs is for a single process.

    Raises:
        ValueError: If there are several processes.
    """
    if arguments.device_map in SPREADING and processes is not None and processes > 1:
        raise ValueError(
            f"device_map={arguments.device_map} is for a single process, not {processes}: leave it out so that each "
            "process loads its own model, or start a single process"
        )


def is_on_cpu() -> bool:
    """Tell whether accelerate's own variable has several processes run on the CPU."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in _TRUE


def count_gpus() -> int:
    """Return the number of GPUs that torch sees; torch is imported only if NVIDIA's driver cannot tell."""
    if not _has_driver():
        return 0
    if (count := _count_by_driver()) is not None:
        return count
    import torch  # noqa: PLC0415 - takes seconds

    return torch.cuda.device_count()


def _count_by_driver() -> int | None:
    """Return the number of GPUs that NVIDIA's driver shows to programs of CUDA, as torch then is; None if unknown.

    The driver observes CUDA_VISIBLE_DEVICES itself.
    """
    build = Path(str(distribution("torch").locate_file("torch/version.py")))
    if _AMD.exists() or not build.exists() or runpy.run_path(str(build)).get("cuda") is None:
        return None
    try:
        driver = ctypes.CDLL(_NVIDIA)
    except OSError:
        return None
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return count.value if status in (0, _NO_DEVICE) else None


def _has_driver() -> bool:
    """Tell whether GPUs may be there: on Linux, without a driver, torch sees none."""
    if sys.platform != "linux" or _AMD.exists():
        return True
    try:
        ctypes.CDLL(_NVIDIA)
    except OSError:
        return False
    return True
