"""Checks of a sweep, and of a search for a setting, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmms_eval_stgridpool.questions.path_videos import questions_about
from lmms_eval_stgridpool.questions.video_table import is_table, read_table, table_file
from lmms_eval_stgridpool.run.checks import CheckedModel
from lmms_eval_stgridpool.run.device_checks import check_devices, check_spreading, is_on_cpu
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.run.model_args import check_passable, parse_model_args
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from lmms_eval_stgridpool.run.table_tasks import task_names
from lmms_eval_stgridpool.run.task_checks import Asked, check_paths, check_table, check_videos
from lmms_eval_stgridpool.run.task_files import TaskFile, find_tasks
from stgridpool.options import choice, fraction
from stgridpool.retention import DEFINITIONS

if TYPE_CHECKING:
    from lmms_eval_stgridpool.comparison.choice import Choice
    from lmms_eval_stgridpool.health.planning import Planner


@dataclass(frozen=True)
class Compared:
    """What a sweep compares, as a command line names it.

    Attributes:
        compressors: See `Choice.parse`.
        model_args: Arguments of the model without the compressor.
        retention: Shares of the checkpoint's own tokens to keep, 0 to 1; empty for the options as they are.
        retention_of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
        has_own: Whether the checkpoint is also evaluated as it is.
        processes: Number of processes; None if a launcher has started them.
    """

    compressors: tuple[str, ...]
    model_args: str
    retention: tuple[float, ...] = ()
    retention_of: str = DEFINITIONS[0]
    has_own: bool = False
    processes: int | None = None

    def check_model(self) -> tuple[CheckedModel, list[Choice]]:
        """Check the compressors, the checkpoint and the arguments of the model.

        Raises:
            ValueError: If one of them cannot work.
            TypeError: If a path is a number.
        """
        from lmms_eval_stgridpool.comparison.choice import Choice, check_choices  # noqa: PLC0415 - imports torch
        from stgridpool.adapters.places import check_settings  # noqa: PLC0415 - imports torch

        choice("--retention-of", self.retention_of, DEFINITIONS)
        for share in self.retention:
            fraction("--retention", share)
        choices = list(map(Choice.parse, self.compressors))
        check_choices(choices, self.model_args)
        given = {**parse_model_args(self.model_args), "compressor": "none"}
        model = CheckedModel.of(given, needs_settings=True)  # they alone say which model runs the checkpoint
        check_spreading(model.arguments, self.processes)
        if isinstance(model.arguments, NativeArguments) and model.settings is not None:
            for method in choices:
                check_settings(method.build(), model.settings)
        return model, choices

    def check_rest(self, model: CheckedModel, choices: Sequence[Choice]) -> tuple[str, ...]:
        """Check whether the longest videos fit into the checkpoint's context with every compressor, and the devices.

        Returns:
            A warning for each compressor with which it depends on the text whether they fit.

        Raises:
            ValueError: If the videos alone do not fit, a compressor cannot work in the model, or a device is not there.
        """
        planner, arguments = model.planner(), model.arguments
        warnings: tuple[str, ...] = ()
        if planner is not None and isinstance(arguments, LlavaArguments):
            warnings = self._check_lengths(planner, choices, arguments.most_frames)
        check_devices(arguments, self.processes, on_cpu=is_on_cpu())
        return warnings

    def _check_lengths(self, planner: Planner, choices: Sequence[Choice], frames: int) -> tuple[str, ...]:
        from lmms_eval_stgridpool.comparison.choice import at_retentions  # noqa: PLC0415 - imports torch
        from lmms_eval_stgridpool.run.context_length import too_long  # noqa: PLC0415 - imports torch

        if self.retention:
            choices, _ = at_retentions(choices, self.retention, self.retention_of, planner.reference, frames)
        methods = {choice.folder: (choice.build(), choice.name) for choice in choices}
        if self.has_own:
            methods["uncompressed"] = planner.reference.own_pooling, "bilinear"
        warnings = []
        for name, method in methods.items():
            try:
                found = too_long(planner, *method, frames)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            if found is not None and found.is_certain:
                raise ValueError(f"{name}: {found.text}")
            warnings += [] if found is None else [f"{name}: {found.text}"]
        return tuple(warnings)


def check_sweep(
    compared: Compared, tasks: str, include: Path | None = None, limit: float | None = None
) -> tuple[str, ...]:
    """Check a sweep over tasks.

    Args:
        compared: What it compares.
        tasks: Names of tasks, or paths of a user's own tables, separated by commas.
        include: Folder of further task files.
        limit: Maximum number of questions per task, or None; see `Asked`.

    Returns:
        What will not go as expected, a line each.

    Raises:
        ValueError: If a task, its table or its videos, the limit, the checkpoint, an argument, a compressor or a device
            cannot work.
        TypeError: If a path is a number.
        FileNotFoundError: If there is no such table.
    """
    asked = Asked(limit)
    found = [(one, check_table(one)) for one in _task_files(tasks, include)]
    model, choices = compared.check_model()
    warnings = check_videos(found, asked, model.most_missing)
    return model.warnings + warnings + compared.check_rest(model, choices)


def check_search(
    compared: Compared, inputs: Sequence[Path], output: Path | None, tolerance: float | None, cost: str
) -> tuple[str, ...]:
    """Check a search for a setting; see `Chooser` for the arguments, and `check_sweep` for the rest."""
    from lmms_eval_stgridpool.comparison.recommendation import check_aim  # noqa: PLC0415 - imports torch

    if output is not None:
        check_passable("--output", str(output))
    check_aim(tolerance, cost)
    questions = questions_about(inputs)
    model, choices = compared.check_model()
    videos = {str(inputs[0]): [question.video for question in questions]}
    warnings = check_paths(videos, model.most_missing)
    return model.warnings + warnings + compared.check_rest(model, choices)


def _task_files(tasks: str, include: Path | None) -> list[TaskFile]:
    """Return the tasks of a sweep; those of tables as they will be written.

    Raises:
        ValueError: If there is no such task, or a table is not as it must be.
        FileNotFoundError: If there is no such table.
    """
    tables, others = list[TaskFile](), list[str]()
    for given, name in zip(tasks.split(","), task_names(tasks), strict=True):
        if is_table(given):
            table = table_file(given)
            read_table(table)
            tables.append(
                TaskFile(name, table, {"dataset_path": str(table.resolve()), "metadata": {"own_table": True}})
            )
        else:
            others.append(name)
    return [*tables, *find_tasks(others, [] if include is None else [include])]
