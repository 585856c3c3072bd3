"""The rank of this process, and its device."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator

from lmms_eval_stgridpool.run.arguments import SPREADING, Arguments


@dataclass(frozen=True)
class Placement:
    """The place of a process in the run.

    Attributes:
        accelerator: The process group; lmms-eval gathers with it.
        rank: Rank among the processes of all machines, from 0.
        world_size: Number of processes on all machines.
        device: Device of inputs and of gathered tensors.
        device_map: Argument for the model loader.
        dtype: Type of weights and pixels.
    """

    accelerator: Accelerator
    rank: int
    world_size: int
    device: torch.device
    device_map: str
    dtype: torch.dtype


def place(arguments: Arguments) -> Placement:
    """Find the device of this process.

    Raises:
        ValueError: If several processes should share a model that is spread over GPUs, or should use devices other than
            accelerate's, or if the requested device does not exist.
    """
    accelerator = Accelerator()
    spread = arguments.device_map in SPREADING
    asked = arguments.device or (None if spread else arguments.device_map)
    if accelerator.num_processes > 1:
        if spread:
            raise ValueError(
                f"device_map={arguments.device_map} is for a single process, not {accelerator.num_processes}: "
                "leave it out so that each process loads its own model, or start a single process"
            )
        device = accelerator.device  # numbered by the local rank; `rank` counts the processes of all machines
        if asked is not None and torch.device(asked).type != device.type:
            raise ValueError(
                f"device {asked} differs from accelerate's {device.type}; "
                "for several processes on the CPU set ACCELERATE_USE_CPU=true instead"
            )
    else:
        device = torch.device(asked or accelerator.device)
        if asked is not None and device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"there is no device {asked}: torch sees {torch.cuda.device_count()} GPUs")
    return Placement(
        accelerator=accelerator,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=device,
        device_map=str(arguments.device_map) if spread else str(device),
        dtype=_dtype(arguments.torch_dtype, device),
    )


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    return {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[name]
