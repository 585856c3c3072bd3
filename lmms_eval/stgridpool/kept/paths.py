"""Paths from users: never empty, and folders with files that are not ours are left alone."""

import argparse
import os
import re
import stat
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

MARKER = ".made_by_stgridpool"
"""File that marks a folder as ours: files in it may be replaced and deleted."""

LONGEST_NAME = 120
"""Longest name of a folder, in characters; file systems allow 255 bytes."""
DIGITS = 8
"""Digits of the digest in a folder's name."""


def folder_name(words: Iterable[str]) -> str:
    """Return a name for the results of a run with these options, so that other options have another folder.

    Letters, digits and ``_=.+-`` stay. If other characters had to be replaced, such as the sign in ``{"a":-1}``, or the
    name is longer than `LONGEST_NAME`, a digest at its end tells it from other names.
    """
    text = "_".join(words)
    name = re.sub(r"[^\w=.+]+", "-", text).strip("-")
    if name == text and len(name) <= LONGEST_NAME:
        return name
    digest = sha256(text.encode()).hexdigest()[:DIGITS]
    return f"{name[: LONGEST_NAME - 1 - DIGITS]}-{digest}"


def check_path(name: str, value: object) -> None:
    """Check that a value names a path; an empty text would mean the working directory.

    Args:
        name: Name of the argument, for messages.
        value: The value.

    Raises:
        ValueError: If it is empty or blank.
        TypeError: If it is neither a text nor a path, but a number for instance.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}; a folder of that name is written ./{value}")
    if not os.fspath(value).strip():
        raise ValueError(f"{name} must be a path, got an empty text; is it a shell variable that is not set?")


def path_argument(text: str) -> Path:
    """Read a path from the command line, for `argparse`.

    Raises:
        argparse.ArgumentTypeError: If it is empty.
    """
    try:
        check_path("this", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def make_folder(name: str, folder: str | os.PathLike[str]) -> Path:
    """Create a folder if it is missing.

    Args:
        name: Name of the argument, for messages.
        folder: The folder.

    Raises:
        ValueError: If the path is empty.
        NotADirectoryError: If the path is not a folder, or is a dangling link.
        OSError: If the folder cannot be created.
    """
    check_path(name, folder)
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(f"{name} must be a folder, and {path} is not one") from error
    return path


def own_folder(name: str, folder: str | os.PathLike[str]) -> Path:
    """Create a folder that belongs to this project, or open an existing one; the file `MARKER` marks it.

    Any number of processes may do this at the same time.

    Args:
        name: Name of the argument, for messages and for the marker.
        folder: The folder.

    Raises:
        ValueError: If the path is empty.
        FileExistsError: If the folder has files but no marker.
        OSError: If the folder cannot be created.
    """
    path = make_folder(name, folder)
    marker = path / MARKER
    found = sorted(os.listdir(path))
    if found and not marker.is_file():  # checked after listing: the marker is written before any other file
        raise FileExistsError(
            f"{name} must be a folder for this purpose alone, and {path} has other files, such as {found[0]}: name "
            f"another folder, or create {marker} if its files may be replaced and deleted"
        )
    if not found:
        marker.write_text(f"{name}: made by stgridpool, which replaces and deletes files here.\n", encoding="utf-8")
    return path


def read_regular_file(path: str | os.PathLike[str]) -> bytes:
    """Read a regular file; a FIFO or a device is refused without waiting for it.

    Raises:
        OSError: If the path is not a regular file, or cannot be read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{os.fspath(path)} is not a regular file")
        return file.read()
