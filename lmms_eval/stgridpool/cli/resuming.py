"""What the last line says where a user stops a command that can resume."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT

import typer


def stopped(command: str, kept: str) -> str:
    """Return the line.

    Args:
        command: Name of the command.
        kept: What is kept, and where: "all answers so far are kept in FOLDER".
    """
    return f"stgridpool {command}: stopped: {kept}; give the same command again to resume"


@contextmanager
def resumable(command: str, kept: str) -> Iterator[None]:
    """Say so where Ctrl-C leaves the block; of several ranks the first does.

    Args:
        command: See `stopped`.
        kept: See `stopped`.

    Raises:
        typer.Exit: With the status of a process that SIGINT ends.
    """
    try:
        yield
    except KeyboardInterrupt:
        from loguru import logger  # noqa: PLC0415 - slow to import

        logger.remove()  # threads may still log
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"\n{stopped(command, kept)}", err=True)
        raise typer.Exit(128 + SIGINT) from None
