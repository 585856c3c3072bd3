"""Batches of images for the vision tower."""

from collections.abc import Callable

import torch

from llava.model.tower import VisionTower

CPU_BATCH = 4  # measured: larger batches leave the caches of a CPU
LARGEST_BATCH = 64  # 64 images of 27x27 patches are 47k rows: more do not make a GPU faster
MEMORY_SHARE = 0.25  # of the free memory; the language model needs the rest
ROWS_HELD = 16  # estimate of the tensors (patches, width) that live at once in a layer: two of them are 4 wide


def fitting_batch_size(tower: VisionTower) -> int:
    """Estimate how many images fit into a share of the GPU's free memory, up to a limit; fixed on other devices."""
    device = tower.device
    if device.type != "cuda":
        return CPU_BATCH
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + cached  # in bytes
    per_image = ROWS_HELD * tower.num_patches * tower.hidden_size * tower.dtype.itemsize
    return max(1, min(LARGEST_BATCH, int(free * MEMORY_SHARE / per_image)))


def map_batches(
    function: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], images: torch.Tensor, batch_size: int
) -> tuple[tuple[torch.Tensor, ...], int]:
    """Apply `function` to batches of images, and to smaller ones if memory runs out.

    A batch that runs out of memory is halved and tried again. Results of earlier batches are kept, and later batches
    have the new size.

    Args:
        function: Maps (b, ...) to tensors whose rows belong to the images in order, equally many for each image.
        images: (B, ...), B at least 1.
        batch_size: Number of images per batch, at least 1.

    Returns:
        The outputs for all images, joined along the first dimension, and the batch size in the end.

    Raises:
        torch.OutOfMemoryError: If memory does not suffice for one image.
    """
    done: list[tuple[torch.Tensor, ...]] = []
    start = 0
    while start < len(images):
        batch = images[start : start + batch_size]
        output = _if_it_fits(function, batch)
        if output is None:
            batch_size = len(batch) // 2
        else:
            done.append(output)
            start += len(batch)
    return done[0] if len(done) == 1 else tuple(map(torch.cat, zip(*done, strict=True))), batch_size


def _if_it_fits(
    function: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], batch: torch.Tensor
) -> tuple[torch.Tensor, ...] | None:
    """Apply `function` to `batch`; None if memory runs out, in which case its allocations have been freed."""
    try:
        return function(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
        return None
