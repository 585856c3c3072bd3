"""The files of a checkpoint, and their headers, which can be read before any weight.

The header of a safetensors file lists names, shapes and dtypes of its tensors, so a checkpoint can be compared with its
configuration before memory is allocated.

Source: https://huggingface.co/docs/safetensors, https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md (pointers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_HUB_FILES = ["*.json", "*.safetensors", "*merges.txt", "*tokenizer.model", "*.jinja"]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a weight file.

    Attributes:
        path: The file.
        shape: Shape of the tensor.
        dtype: Its dtype as safetensors spells it, such as BF16.
        name: Its name in the file.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    name: str

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers of at least 16 bits, which are weights as they are."""
        return self.dtype in ("F64", "F32", "F16", "BF16")


def is_hub_name(name: str) -> bool:
    """Tell whether `name` can be the name of a repository on the hub; a path such as /models/tower cannot."""
    return _HUB_NAME.fullmatch(name) is not None


def checkpoint_folder(name: str) -> Path:
    """Find the folder of a checkpoint, and download it from the hub to the cache if necessary.

    Args:
        name: Folder or hub name.

    Raises:
        ValueError: If `name` is empty, a file, or neither a folder nor an accessible repository on the hub.
    """
    if not name.strip():
        raise ValueError(
            "the checkpoint's path is empty: pass a folder or a hub name as `pretrained` or `model_path` "
            "(is a shell variable unset?)"
        )
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"{name} is a file: pass the folder of the checkpoint")
    if not is_hub_name(name):
        raise ValueError(f"{name} does not exist: pass the folder of a checkpoint, or a hub name such as owner/name")
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except OSError as error:
        raise ValueError(f"{name} is not a folder here, and the hub does not provide it: {one_line(error)}") from error


def local_folder(name: str) -> Path | None:
    """Return the folder of a checkpoint on this disk; None if it is on the hub only.

    Only the files that `checkpoint_folder` downloads must be there; older versions of huggingface_hub also return a
    folder to which some of them have yet to be downloaded.

    Args:
        name: Folder or hub name; nothing is downloaded.

    Raises:
        ValueError: If it is neither.
    """
    if Path(name).exists() or not is_hub_name(name):
        return checkpoint_folder(name)
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def hub_commit(folder: Path) -> str | None:
    """Return the commit on the hub of a checkpoint's folder in the hub's cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ValueError: If the file is missing, is a Git LFS pointer, or does not contain a JSON object.
    """
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {path.name}: copy or download it again")
    check_no_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({one_line(error)}): copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got a {type(content).__name__}")
    return content


def check_no_pointer(path: Path) -> None:
    """Check that a file is not a Git LFS pointer.

    Raises:
        ValueError: If it is.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull` in {path.parent}")


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """List all tensors of a checkpoint by name, from the headers of its weight files.

    Raises:
        ValueError: If a file is missing, damaged, truncated or a Git LFS pointer, two files contain the same tensor, or
            the index names files outside of `folder` or tensors that its files lack.
    """
    if (folder / WEIGHTS).is_file():
        return _tensors_of([folder / WEIGHTS])
    index = folder / INDEX
    if not index.is_file():
        raise ValueError(_no_weights(folder))
    places = read_index(index)
    tensors = _tensors_of(folder / name for name in sorted(set(places.values())))
    lost = sorted(places.keys() - tensors.keys())
    if lost:
        raise ValueError(
            f"{index} lists {len(lost)} tensors that no weight file holds, such as {lost[0]} in {places[lost[0]]}: "
            "copy or download index and weights again"
        )
    return tensors


def one_line(error: Exception) -> str:
    """Return the message of an exception on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def _no_weights(folder: Path) -> str:
    message = f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX} with its files"
    if any(folder.glob("*.bin")):
        message += (
            "; .bin files are pickles and are not read: convert each with "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path, metadata={'format': 'pt'})"
        )
    return message


def read_index(index: Path, suffix: str = ".safetensors") -> dict[str, str]:
    """Read file names by tensor from an index of weights.

    Args:
        index: The JSON file.
        suffix: How the names of weight files end.

    Raises:
        ValueError: If it is damaged, or a file is not beside it or below its folder.
    """
    content = read_json(index)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{index}: weight_map must be an object that gives each tensor the name of its file")
    if not isinstance(content.get("metadata"), dict):
        raise ValueError(f"{index}: metadata must be an object; write {{}} if nothing is known")
    for tensor, name in places.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.suffix != suffix:
            raise ValueError(
                f"{index}: weight_map gives {tensor} the file {name!r}; it must be a {suffix} file in the "
                "checkpoint's folder"
            )
        if not (index.parent / name).is_file():
            raise ValueError(f"{index.parent} lacks {name}, which {index.name} lists: copy or download it again")
    return places


def _tensors_of(paths: Iterable[Path]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        for name, tensor in _header(path).items():
            if name in tensors:
                raise ValueError(f"{name} is stored twice: in {tensors[name].path} and in {path}; remove one of them")
            tensors[name] = tensor
    return tensors


def _header(path: Path) -> dict[str, StoredTensor]:
    check_no_pointer(path)
    try:
        with safe_open(path, framework="numpy") as file:  # headers need no torch
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no mapping
            return {
                name: StoredTensor(path, tuple(entry.get_shape()), entry.get_dtype(), name)
                for name, entry in slices.items()
            }
    except SafetensorError as error:
        raise ValueError(
            f"{path} is cut off or damaged ({path.stat().st_size} bytes; {one_line(error)}): copy or download it again"
        ) from error
