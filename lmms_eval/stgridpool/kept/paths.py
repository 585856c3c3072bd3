"""Paths that users name: never empty, and nothing changes in folders that hold other things than ours."""

import argparse
import os
import stat
from pathlib import Path
from typing import Any

MARKER = ".made_by_stgridpool"
"""File that marks a folder as one of this project's, in which files may be replaced and deleted."""


def check_path(name: str, value: Any) -> None:
    """Refuse what names no path. An empty text is one: it would be the working directory.

    Args:
        name: What the path is for, as the user wrote it; it stands in the message.
        value: What was given.

    Raises:
        ValueError: If it is empty or blank.
        TypeError: If it is no text and no path, such as a number.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}; a folder of that name is written ./{value}")
    if not os.fspath(value).strip():
        raise ValueError(f"{name} must be a path, got an empty text; is it a shell variable that is not set?")


def path_argument(text: str) -> Path:
    """A path on the command line, for `argparse`.

    Raises:
        argparse.ArgumentTypeError: If it is empty.
    """
    try:
        check_path("this", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def make_folder(name: str, folder: str | os.PathLike[str]) -> Path:
    """Make a folder if it is missing.

    Args:
        name: What it is for; it stands in the message.
        folder: The folder.

    Raises:
        ValueError: If the path is empty.
        NotADirectoryError: If it leads to something else, or nowhere, as a dangling link does.
        OSError: If it cannot be made.
    """
    check_path(name, folder)
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(f"{name} must be a folder, and {path} is something else") from error
    return path


def own_folder(name: str, folder: str | os.PathLike[str]) -> Path:
    """Make a folder that is ours alone, or take one that was made so before; the file `MARKER` in it says so.

    Any number of processes may do it at once.

    Args:
        name: What it is for; it stands in the message and in the marker.
        folder: The folder.

    Raises:
        ValueError: If the path is empty.
        FileExistsError: If it holds files and no marker.
        OSError: If it cannot be made.
    """
    path = make_folder(name, folder)
    marker = path / MARKER
    found = sorted(os.listdir(path))
    if found and not marker.is_file():  # asked after the listing: the marker is there before any other file
        raise FileExistsError(
            f"{name} must be a folder of its own, and {path} holds other files, such as {found[0]}: name another "
            f"folder, or create {marker} if files in it may be replaced and deleted"
        )
    if not found:
        marker.write_text(f"{name}: made by stgridpool, which replaces and deletes files here.\n", encoding="utf-8")
    return path


def read_regular_file(path: str | os.PathLike[str]) -> bytes:
    """What a file holds. Nothing else is waited for: a FIFO or a device is refused.

    Raises:
        OSError: If it is no regular file, or cannot be read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{os.fspath(path)} is no regular file")
        return file.read()
