"""Health of a checkpoint: its files, its configuration, its tokenizer, its weights."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import torch

from llava.model.checkpoint import Checkpoint, read_checkpoint
from llava.model.checkpoint_kind import is_original
from llava.nvila.layout import nvila_folder
from lmms_eval_stgridpool.health.finding import OK, PROBLEM, WARNING, Finding
from stgridpool.adapters.names import MODEL_TYPES
from stgridpool.checkpoint_files import StoredTensor, local_folder, read_json
from stgridpool.finite_weights import read_weights

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MEMORY_SHARE = 0.9
"""Share of a device's memory that weights may take; the rest is for frames, tokens and caches."""

Progress = Callable[[str, int], Callable[[int], None]]
"""Starts a progress bar with a title and a total, and returns the function that advances it."""


def check_checkpoint(name: str, progress: Progress | None) -> Iterator[Finding]:
    """Check a checkpoint from its files, without building a model.

    Args:
        name: Folder or hub name; nothing is downloaded.
        progress: See `Progress`; None leaves out the weights themselves, which take as long as reading the disk.
    """
    try:
        folder = local_folder(name)
    except ValueError as error:
        yield Finding("checkpoint", PROBLEM, str(error), "name a folder or a hub name")
        return
    if folder is None:
        yield Finding("checkpoint", WARNING, f"{name} is not on this disk; a run downloads it", f"hf download {name}")
        return
    try:
        settings = read_json(folder / "config.json") if nvila_folder(folder) is None else {}
        if settings.get("model_type") in MODEL_TYPES and not is_original(settings):
            yield from _native(folder, progress)
            return
        checkpoint = read_checkpoint(folder)
    except ValueError as error:
        yield Finding("checkpoint", PROBLEM, str(error), f"download it again, or fix what is named (in {folder})")
        return
    count = len(checkpoint.tensors)
    yield Finding("checkpoint", OK, f"{folder}: configuration and {count} tensors agree; no weight is missing")
    yield _tokenizer(checkpoint)
    yield from _weights(checkpoint.tensors, progress)


def _native(folder: Path, progress: Progress | None) -> Iterator[Finding]:
    """Check the checkpoint of a native model of transformers: its files, its processor and its weights.

    Raises:
        ValueError: See `check_stored`.
    """
    # transformers' own models are slow to import
    from stgridpool.adapters.native_checks import check_stored, read_config  # noqa: PLC0415
    from stgridpool.adapters.native_processor import load_processor  # noqa: PLC0415

    tensors = check_stored(folder)
    config = read_config(folder, read_json(folder / "config.json"))
    text = f"{folder}: a native {config.model_type} with {len(tensors)} tensors, which --model video_hf runs"
    yield Finding("checkpoint", OK, text)
    try:
        processor = load_processor(folder, config)
        yield Finding("processor", OK, f"{type(processor).__name__}, {len(processor.tokenizer)} tokens")
    except ValueError as error:
        repair = f"fix what is named, or copy the processor's files again (in {folder})"
        yield Finding("processor", PROBLEM, str(error), repair)
    yield from _weights(tensors, progress)


def _weights(tensors: Mapping[str, StoredTensor], progress: Progress | None) -> Iterator[Finding]:
    """Check the size of weights, and, with `progress`, that all are finite."""
    yield _size(list(tensors.values()))
    if progress is None:
        return
    total = sum(_BYTES[tensor.dtype] * prod(tensor.shape) for tensor in tensors.values() if tensor.is_float)
    not_finite, overflowing = read_weights(tensors, progress("Reading weights", total))
    state = PROBLEM if not_finite else WARNING if overflowing else OK
    text, _, repair = (not_finite or overflowing or "all are finite, in float16 too").partition(": ")
    yield Finding("weights", state, text, repair)


def _tokenizer(checkpoint: Checkpoint) -> Finding:
    try:
        tokenizer = checkpoint.tokenizer()
    except (ValueError, OSError) as error:
        return Finding("tokenizer", PROBLEM, str(error), "copy its files from the checkpoint this one was made of")
    return Finding("tokenizer", OK, f"{len(tokenizer)} tokens")


def _size(tensors: Sequence[StoredTensor]) -> Finding:
    """Compare the size of the weights with the memory of the device that a run would use by default."""
    numbers = sum(prod(tensor.shape) for tensor in tensors)
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in Counter(tensor.dtype for tensor in tensors).most_common())
    has_gpu = torch.cuda.is_available()
    needed = numbers * (2 if has_gpu else 4) / 1e9
    if has_gpu:
        memory = max(torch.cuda.mem_get_info(index)[1] for index in range(torch.cuda.device_count())) / 1e9
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    dtype, place = ("float16", "the largest GPU") if has_gpu else ("float32", "this machine")
    text = f"{numbers / 1e6:,.1f} million numbers ({dtypes}), {needed:.2f} GB in {dtype}; {place} has {memory:.0f} GB"
    if needed <= MEMORY_SHARE * memory:
        return Finding("size", OK, text)
    repair = "device_map=auto spreads it over several GPUs" if has_gpu else "torch_dtype=bfloat16 takes half of that"
    return Finding("size", WARNING, text, repair)
