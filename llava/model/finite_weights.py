"""Check that the weights of a loaded model are finite, since a model with NaN or infinity gives nonsense answers."""

from collections.abc import Mapping

import torch
from safetensors import safe_open
from torch import nn

from llava.model.tensor_shapes import plain_name
from stgridpool.checkpoint_files import StoredTensor
from stgridpool.finite_weights import CHECKED_DTYPES, files_problem, held_weights, not_finite, overflow_error, some_of


@torch.no_grad()
def check_finite(model: nn.Module, tensors: Mapping[str, StoredTensor]) -> None:
    """Check that no weight of a model is NaN or infinite.

    Each weight is reduced to its smallest and largest value on its device, and we wait for every device once. Weights
    that are not floating-point numbers on a device (offloaded or quantised ones) are read from their file instead, one
    tensor at a time.

    Args:
        model: The model, before any of its weights are truncated.
        tensors: The tensors in the checkpoint's files.

    Raises:
        ValueError: If weights are not finite; the message names their files, or says that they are finite there but
            overflow in the model's dtype.
    """
    weights = {plain_name(name): weight for name, weight in model.state_dict().items()}
    held = held_weights(weights)
    stored = {plain_name(name): (name, tensor) for name, tensor in tensors.items()}
    unseen = [name for name in weights if name not in held]
    bad = not_finite(held)
    bad_in_file = {name for name in (*unseen, *bad) if name in stored and not _is_finite_in_file(*stored[name])}
    if bad_in_file:
        raise ValueError(files_problem({stored[name][0]: stored[name][1].path for name in sorted(bad_in_file)}))
    overflowing = [name for name in bad if name in stored]
    if overflowing:
        raise overflow_error(overflowing, held[overflowing[0]].dtype)
    if bad:
        raise ValueError(f"weights are NaN or infinite in the vision tower that mm_vision_tower names ({some_of(bad)})")


def _is_finite_in_file(name: str, tensor: StoredTensor) -> bool:
    with safe_open(tensor.path, framework="pt") as file:
        values = file.get_tensor(tensor.name)
    return values.dtype not in CHECKED_DTYPES or not not_finite({name: values})
