"""Starting a command of `stgridpool` again, on several processes."""

import os
import sys
from collections.abc import Mapping, Sequence

from lmms_eval_stgridpool.cli.resuming import stopped

LAUNCHED = "--launched"
"""The option by which a rank knows that a command has checked what to do, started it, and says what a signal leaves."""


def launch(processes: int, command: str, words: Sequence[str], kept: str) -> None:
    """Replace this process by accelerate's launcher, which starts a command of `stgridpool` on several processes.

    Args:
        processes: Number of processes.
        command: Name of the command.
        words: Its arguments and options.
        kept: What a signal that ends it leaves, see `stopped`.
    """
    from lmms_eval_stgridpool.run.device_checks import count_gpus  # noqa: PLC0415 - not needed where one process runs

    launcher = [sys.executable, "-m", "lmms_eval_stgridpool.run.quiet_launch", stopped(command, kept)]
    launcher += ["--num_machines", "1", "--multi_gpu"]
    launcher += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += [
        "--main_process_port",
        "0",
        "-m",
        "lmms_eval_stgridpool.cli",
        LAUNCHED,
        command,
        *words,
    ]  # port 0: any free one
    on_cpu = {} if count_gpus() else {"ACCELERATE_USE_CPU": "true"}
    os.execvpe(launcher[0], launcher, {**os.environ, **on_cpu})


def is_launched() -> bool:
    """Tell whether `launch` has started this process, one of several."""
    return sys.argv[1:2] == [LAUNCHED]


def option_words(options: Mapping[str, object]) -> list[str]:
    """Write options as words of a command line.

    Args:
        options: Values by option. A list repeats its option, True is a flag; None and False are left out.
    """
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is True:
                words.append(name)
            elif one is not None and one is not False:
                words += [name, str(one)]
    return words
