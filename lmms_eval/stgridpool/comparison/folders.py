"""Where a sweep writes. Nothing here imports torch or lmms-eval: what starts the ranks of a sweep needs neither."""

from pathlib import Path

from lmms_eval_stgridpool.kept.paths import folder_name
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.run.table_tasks import task_names
from stgridpool.retention import DEFINITIONS


def output_folder(runs: Path, tasks: str, model_args: str, **options: object) -> Path:
    """Return where a sweep with these options writes unless told otherwise: sweeps with other options write elsewhere.

    lmms-eval adds the checkpoint's name, and each compressor has a folder named by its options and retention.

    Args:
        runs: The folder of all runs.
        tasks: See `Sweep`.
        model_args: See `Sweep`; those that change no answer may be among them.
        **options: Further options of `Sweep`; None, or the default definition of retention, names nothing.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If `model_args` cannot be read.
    """
    given = parse_model_args(model_args)
    words = [f"{name}={value}" for name, value in given.items() if name not in ("pretrained", "resume_dir")]
    others = {name: value for name, value in options.items() if value not in (None, DEFINITIONS[0])}
    words += [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in others.items()]
    return runs / folder_name(["+".join(task_names(tasks))]) / folder_name(["sweep", *words])


def answers_folder(model_args: str, output: Path) -> Path:
    """Return the folder that keeps the answers of a sweep: ``resume_dir``, or one in the folder of its results."""
    return Path(parse_model_args(model_args).get("resume_dir", output / "answers"))


def kept_answers(model_args: str, output: Path) -> str:
    """Say what there is to go on with where a sweep is stopped; see `answers_folder`."""
    return f"all answers so far are kept in {answers_folder(model_args, output)}"
