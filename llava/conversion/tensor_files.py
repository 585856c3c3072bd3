"""Safetensors files rewritten with other names, without loading a tensor.

A file is a header, which lists name, dtype, shape and place of each tensor, and the tensors' bytes. Renaming changes
the header only, so the bytes are copied from file to file in small pieces: memory does not grow with the tensors,
whereas writing through the safetensors library holds a whole file in memory, twice.

Source: https://huggingface.co/docs/safetensors (format).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 16 * 2**20  # bytes
_ALIGNMENT = 8  # bytes; the tensors begin at a multiple of it


@dataclass(frozen=True)
class _Tensor:
    """A tensor in a file.

    Attributes:
        name: Its name.
        dtype: Its dtype as safetensors spells it.
        shape: Its shape.
        start: Its first byte in the file.
        size: Its length in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def resized(self, name: str, rows: int | None) -> "_Tensor":
        """Return how it is written: under `name`, with the first `rows` rows, or zeros below its own."""
        if rows is None:
            return _Tensor(name, self.dtype, self.shape, self.start, self.size)
        size = self.size // self.shape[0] * rows
        return _Tensor(name, self.dtype, (rows, *self.shape[1:]), self.start, size)


def rewrite(source: Path, target: Path, names: Mapping[str, str], rows: Mapping[str, int]) -> dict[str, int]:
    """Copy a safetensors file under other names, in the order of the tensors' bytes.

    Args:
        source: The file to read; its header has been checked.
        target: The file to write.
        names: New names by old names; tensors without one are left out.
        rows: New numbers of rows by old names: further rows are cut off, missing ones become zeros.

    Returns:
        Bytes of each tensor written, by its new name.

    Raises:
        OSError: If a file cannot be read or written.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        metadata, tensors = _header(reader)
        kept = [tensor for tensor in tensors if tensor.name in names]
        written = [tensor.resized(names[tensor.name], rows.get(tensor.name)) for tensor in kept]
        writer.write(_header_bytes(metadata, written))
        for old, new in zip(kept, written, strict=True):
            reader.seek(old.start)
            _copy(reader, writer, min(old.size, new.size))
            _write_zeros(writer, new.size - old.size)
    return {tensor.name: tensor.size for tensor in written}


def _header(reader: BinaryIO) -> tuple[dict[str, str] | None, list[_Tensor]]:
    length = int.from_bytes(reader.read(8), "little")
    content: dict[str, Any] = json.loads(reader.read(length))
    metadata = content.pop("__metadata__", None)
    begin = 8 + length
    tensors = []
    for name, entry in content.items():
        first, last = entry["data_offsets"]
        tensors.append(_Tensor(name, entry["dtype"], tuple(entry["shape"]), begin + first, last - first))
    return metadata, sorted(tensors, key=lambda tensor: tensor.start)


def _header_bytes(metadata: dict[str, str] | None, tensors: list[_Tensor]) -> bytes:
    content: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    place = 0
    for tensor in tensors:
        offsets = [place, place + tensor.size]
        content[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        place += tensor.size
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _pieces(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, PIECE)
        size -= PIECE


def _copy(reader: BinaryIO, writer: BinaryIO, size: int) -> None:
    for piece in _pieces(size):
        writer.write(reader.read(piece))


def _write_zeros(writer: BinaryIO, size: int) -> None:
    for piece in _pieces(size):
        writer.write(bytes(piece))
