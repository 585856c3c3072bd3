"""Conversion of a checkpoint, file by file, into a new folder that appears only when it is complete."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llava.conversion.names import native_name, original_name
from llava.conversion.native_config import KEPT, TOKENIZER_LENGTH, check_expressible, limits, native_settings
from llava.conversion.original_config import check_native, original_settings
from llava.conversion.processor_files import write_processor
from llava.conversion.tensor_files import rewrite
from llava.conversion.tokenizer_files import (
    PLACEHOLDERS,
    ids_to_add,
    length_without_placeholders,
    write_json,
    write_with,
    write_without,
)
from llava.model.geometry import check_geometry, holds_tower
from llava.model.settings import make_config, read_settings
from llava.model.tokenizer import load_tokenizer
from stgridpool.checkpoint_files import INDEX, WEIGHTS, StoredTensor, checkpoint_folder, read_json, stored_tensors

NATIVE_TYPE = "llava_onevision"
_GENERATION = "generation_config.json"


def convert(source: str, target: Path, verify: bool = True, device: str = "cpu") -> list[str]:
    """Convert a checkpoint into the other format: LLaVA-NeXT's into the native one, a native one into LLaVA-NeXT's.

    Weights are copied file by file in pieces of 16 MiB and never loaded, so that memory does not grow with them; only
    `verify` loads the models, in float32 and one after the other.

    Args:
        source: Folder or hub name of a LLaVA-OneVision or LLaVA-Video checkpoint.
        target: The new folder; its parent exists.
        verify: Whether to compare greedy answers of both classes before the folder appears.
        device: Device for `verify`.

    Returns:
        What the other format cannot express, and what was left out or made up: a line each.

    Raises:
        ValueError: If `target` exists, the checkpoint is of another kind, damaged or contradicts itself, the other
            format lacks one of its parts, the disk is too small, or answers differ.
        OSError: If a file cannot be read or written.
    """
    folder = checkpoint_folder(source)
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder} holds LoRA weights: merge them into their base model first")
    is_native = read_json(folder / "config.json").get("model_type") == NATIVE_TYPE
    with _new_folder(target) as new:
        notes = _to_original(folder, new) if is_native else _to_native(folder, new)
        if verify:
            from llava.conversion.verification import check_answers  # noqa: PLC0415  builds models, which is slow

            check_answers(*((new, folder) if is_native else (folder, new)), device)
    return notes


def _to_native(folder: Path, new: Path) -> list[str]:
    original = read_json(folder / "config.json")
    settings, source = read_settings(folder, None, {})
    tensors = stored_tensors(folder)
    config = make_config(settings, tensors, source)
    check_expressible(config, source)
    if not holds_tower(tensors):
        raise ValueError(
            f"{folder} holds no weights of the vision tower {config.mm_vision_tower}: load it with "
            "llava.model.builder.load_pretrained_model, set mm_tunable_parts to 'mm_vision_tower' in its config, and "
            "save it"
        )
    check_geometry(config, tensors, source)
    without_image_tokens = {**settings, "mm_use_im_patch_token": False, "mm_use_im_start_end": False}
    plain = load_tokenizer(folder, make_config(without_image_tokens, tensors, source))
    complete = load_tokenizer(folder, config)
    added = ids_to_add(plain, complete)
    ids = {token: {**complete.get_vocab(), **added}[token] for token in PLACEHOLDERS}
    num_rows = max(config.vocab_size, len(plain) + len(added))
    generation = read_json(folder / _GENERATION) if (folder / _GENERATION).is_file() else {}

    native = native_settings(original, config, ids, len(plain), num_rows)
    rows = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), num_rows)
    unused = _write_weights(
        folder,
        new,
        tensors,
        {name: native_name(name) for name in tensors},
        rows if num_rows > config.vocab_size else {},
    )
    write_json(new / "config.json", native)
    write_with(folder, new, plain, added)
    write_processor(new, native)
    ends = generation if "eos_token_id" in generation else {**generation, "eos_token_id": config.eos_token_id}
    silent = list(range(len(complete), num_rows))  # rows that LLaVA-NeXT's loader cuts off, so that none is ever said
    write_json(new / _GENERATION, {**ends, "suppress_tokens": silent} if silent else ends)
    return [*limits(original, generation, config), *unused]


def _to_original(folder: Path, new: Path) -> list[str]:
    native = read_json(folder / "config.json")
    check_native(native, str(folder / "config.json"))
    settings = original_settings(native)
    tensors = stored_tensors(folder)
    names = {name: original_name(name) for name in tensors}
    tables = [name for name, other in names.items() if other in ("model.embed_tokens.weight", "lm_head.weight")]
    rows = dict.fromkeys(tables, settings["vocab_size"]) if KEPT in native else {}
    unused = _write_weights(folder, new, tensors, names, rows)
    write_json(new / "config.json", settings)
    length = native.get(TOKENIZER_LENGTH)
    write_without(folder, new, length_without_placeholders(folder) if length is None else length)
    if (folder / _GENERATION).is_file():
        generation = read_json(folder / _GENERATION)
        generation.pop("suppress_tokens", None)
        write_json(new / _GENERATION, generation)
    written, source = read_settings(new, None, {})
    copied = stored_tensors(new)
    config = make_config(written, copied, source)
    check_geometry(config, copied, source)
    load_tokenizer(new, config)
    if KEPT in native:
        return unused
    return ["config.json: the native one keeps no original settings; written are those of LLaVA-OneVision", *unused]


def _write_weights(
    folder: Path,
    new: Path,
    tensors: Mapping[str, StoredTensor],
    names: Mapping[str, str | None],
    rows: Mapping[str, int],
) -> list[str]:
    """Write the weight files and their index, and return a line about the tensors that were left out, if any."""
    total = sum(path.stat().st_size for path in {tensor.path for tensor in tensors.values()})
    free = shutil.disk_usage(new).free
    if free < total:
        raise ValueError(f"the weights take {total / 1e9:.1f} GB, and {new.parent} has {free / 1e9:.1f} GB: free some")
    kept = {name: other for name, other in names.items() if other is not None}
    places: dict[str, str] = {}
    sizes = 0
    for path in sorted({tensor.path for tensor in tensors.values()}):
        file = path.relative_to(folder)
        (new / file).parent.mkdir(parents=True, exist_ok=True)
        written = rewrite(path, new / file, kept, rows)
        places |= dict.fromkeys(written, file.as_posix())
        sizes += sum(written.values())
    if not (folder / WEIGHTS).is_file():
        metadata = {**read_json(folder / INDEX)["metadata"], "total_size": sizes}
        write_json(new / INDEX, {"metadata": metadata, "weight_map": dict(sorted(places.items()))})
    lost = sorted(names.keys() - kept.keys())
    return [f"weights that the other format does not have ({len(lost)}): {', '.join(lost[:5])}"] if lost else []


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `target` that takes its name if the block succeeds, and is deleted otherwise."""
    if target.exists() or target.is_symlink():
        raise ValueError(f"{target} exists, and nothing is overwritten: name a new folder, or remove it")
    if not target.parent.is_dir():
        raise ValueError(f"{target.parent} is not a folder: create it first")
    hidden = target.with_name(f".{target.name}.{os.getpid()}.incomplete")
    hidden.mkdir()
    try:
        yield hidden
        hidden.rename(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
