"""Paths on the command line of ``stgridpool``."""

from argparse import ArgumentTypeError
from pathlib import Path

import typer

from lmms_eval_stgridpool.kept.paths import path_argument


def path(text: str) -> Path:
    """Read a path from the command line, for every option and argument that is one; help calls its value PATH.

    Raises:
        typer.BadParameter: If it is empty, which `typer` would take for the working directory.
    """
    try:
        return path_argument(text)
    except ArgumentTypeError as error:
        raise typer.BadParameter(str(error)) from error


def folder_or_name(text: str) -> str:
    """Read a checkpoint from the command line: a folder, or a name on the hub.

    Raises:
        typer.BadParameter: If it is empty.
    """
    path(text)
    return text
