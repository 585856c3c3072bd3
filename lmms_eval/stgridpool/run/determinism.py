"""Runs that can be repeated bit for bit, with fixed seeds and deterministic kernels.

On a GPU this is slower, and an operation without a deterministic kernel ends the run with an error that names it.
"""

import hashlib
import os
import random

import numpy as np
import torch


def switch_on() -> None:
    """Restrict PyTorch to deterministic kernels; call this before the GPU does anything."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS has no other setting
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def seed_from(text: str) -> None:
    """Seed all random number generators from `text`.

    With the question as the seed, a sampled answer does not depend on the questions before it, and therefore not on the
    number of ranks or on interruptions.
    """
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - other libraries use this generator
    torch.manual_seed(seed)
