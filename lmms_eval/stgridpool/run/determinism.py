"""Runs that can be repeated bit for bit: fixed seeds and deterministic kernels.

On a GPU this costs speed, and an operation that has no deterministic kernel ends the run with an error that names it.
"""

import hashlib
import os
import random

import numpy as np
import torch


def switch_on() -> None:
    """Let PyTorch take deterministic kernels only. To be called before the first work on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the only way to tell cuBLAS
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def seed_from(text: str) -> None:
    """Seed every generator of random numbers from `text`.

    Seeding from a question makes sampled answers independent of what was asked before, hence of the number of
    processes and of interruptions.
    """
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that other libraries draw from
    torch.manual_seed(seed)
