"""Pickles of plain data: texts, numbers, lists and dictionaries. Any other type is refused, so that no code can run."""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

LARGEST = 10_000_000
"""Maximum size of a file to read, in bytes; metadata of a video takes a few thousand."""


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every type that a pickle would have to import."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, and only plain data is read")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain data.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is too large, is not a pickle, or holds other types.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size} bytes, and metadata at most {LARGEST}")
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a pickle of plain data: {error}") from error
