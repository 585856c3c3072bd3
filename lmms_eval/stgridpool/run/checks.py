"""Checks of a run before anything is loaded: every error that can be known names its cause and repair in one line.

transformers and lmms-eval are not imported. Compressors import torch (see `run.without_torch`), and GPUs, which torch
counts, come last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval_stgridpool.run.arguments import Arguments
from lmms_eval_stgridpool.run.checkpoint_checks import (
    LLAVA,
    NATIVE,
    PATIENT_S,
    QUICK_S,
    SlowHubError,
    model_for,
    read_checkpoint_settings,
)
from lmms_eval_stgridpool.run.device_checks import check_devices, check_spreading
from lmms_eval_stgridpool.run.llava_arguments import LlavaArguments
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.run.native_arguments import NativeArguments
from lmms_eval_stgridpool.run.task_checks import ALL, Asked, check_table, check_videos
from lmms_eval_stgridpool.run.task_files import find_tasks
from stgridpool.suggestion import suggestion

if TYPE_CHECKING:
    from lmms_eval_stgridpool.health.planning import Planner

ARGUMENTS: Mapping[str, type[Arguments]] = {LLAVA: LlavaArguments, NATIVE: NativeArguments}
"""The class of the arguments by the name of the model in lmms-eval."""
_PACKAGES = {
    ("attn_implementation", "flash_attention_2"): ("flash_attn", "flash-attn", "sdpa"),
    ("video_decode_backend", "decord"): ("decord", "decord", "pyav"),
}
"""Module, package and alternative, by the argument that needs it."""

_NAMING = " or ".join(f'-- --model {name} (stgridpool eval: --lmms-eval "--model {name}")' for name in ARGUMENTS)
"""How a run's command names its model."""


@dataclass(frozen=True)
class Checked:
    """What is known of a run that can start.

    Attributes:
        model: The lmms-eval model that runs the checkpoint.
        num_gpus: Number of GPUs that torch can use.
        warnings: What will not go as expected, a line each.
    """

    model: str
    num_gpus: int
    warnings: tuple[str, ...]


def check_run(
    task: str,
    model_args: str,
    processes: int | None = None,
    include: Sequence[Path] = (),
    *,
    model: str | None = None,
    machines: int = 1,
    on_cpu: bool = False,
    asked: Asked = ALL,
) -> Checked:
    """Check what a run is asked to do.

    Args:
        task: Name of the task, or several separated by commas.
        model_args: Arguments of the model, as for lmms-eval.
        processes: Number of processes on all machines; None for the default.
        include: Folders of further task files.
        model: Name of the model in lmms-eval; None for the one that runs the checkpoint.
        machines: Number of machines.
        on_cpu: Whether several processes are to run on the CPU in any case.
        asked: Which questions are asked.

    Raises:
        ValueError: If an argument, the compressor, the device, the checkpoint, the task, its table or its videos cannot
            work, or the longest videos do not fit into the context; the message says why, and what would.
        TypeError: If a path is a number.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"the number of processes must be at least 1, got {processes}")
    given = parse_model_args(model_args)
    tasks = find_tasks(task.split(","), include)
    tables = [(one, check_table(one)) for one in tasks]
    checked = CheckedModel.of(given, model)
    check_spreading(checked.arguments, processes)
    warnings = checked.warnings + check_videos(tables, asked, checked.most_missing) + checked.check_length()
    return Checked(checked.arguments.MODEL, check_devices(checked.arguments, processes, machines, on_cpu), warnings)


@dataclass(frozen=True)
class CheckedModel:
    """Arguments of a model that suit its checkpoint, and packages that are installed.

    Attributes:
        arguments: The arguments, with what the checkpoint decides.
        settings: The settings of the checkpoint's config.json; None if they are not known.
        warnings: Why they are not known.
    """

    arguments: Arguments
    settings: Mapping[str, Any] | None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any], model: str | None = None, needs_settings: bool = False) -> CheckedModel:
        """Check the arguments of a model.

        Args:
            given: The arguments by name.
            model: See `check_run`.
            needs_settings: Whether the checkpoint's settings must be known. A slow hub gets more time for them, as
                where no model is named; otherwise a warning says that they are not known.

        Raises:
            ValueError: If an argument, the checkpoint or the compressor with it cannot work, or a package is not
                installed.
            SlowHubError: If the settings are needed, or decide which model runs the checkpoint, and the hub does not
                answer in time.
            TypeError: If a path is a number.
        """
        settings, warnings = None, tuple[str, ...]()
        if isinstance(given.get("pretrained"), str) and given["pretrained"].strip():
            may_miss = model is not None and not needs_settings
            try:
                _, settings = read_checkpoint_settings(given["pretrained"], QUICK_S if may_miss else PATIENT_S)
            except SlowHubError as error:
                if needs_settings:
                    raise
                if model is None:
                    raise SlowHubError(f"{error}: try again, or name the model: {_NAMING}") from error
                warnings = (f"{error}: it is not checked, and {model} is to run it",)
        arguments = _class_for(model, given, settings).parse(given)
        if settings is not None and isinstance(arguments, LlavaArguments):
            arguments = arguments.for_checkpoint(settings)
        if settings is not None and isinstance(arguments, NativeArguments):
            from stgridpool.adapters.places import check_settings  # noqa: PLC0415 - imports torch

            check_settings(arguments.build_compressor(), settings)
        _check_packages(arguments)
        return cls(arguments, settings, warnings)

    @property
    def most_missing(self) -> float | None:
        """Largest fraction of questions whose videos may be missing; None if a cache may have their features."""
        return None if self.arguments.features_of_missing_videos else self.arguments.max_failed

    def planner(self) -> Planner | None:
        """Return what counts tokens for the checkpoint; None for native models, and if a size is unknown."""
        from lmms_eval_stgridpool.health.planning import Planner  # noqa: PLC0415 - imports torch

        if self.settings is None or not isinstance(self.arguments, LlavaArguments):
            return None
        return Planner.of_settings({**self.settings, **self.arguments.overwrites()})

    def check_length(self) -> tuple[str, ...]:
        """Check that the longest videos fit into the checkpoint's context.

        Shorter videos have fewer frames, so that a run which could succeed gives the same answers with fewer frames.

        Returns:
            A warning if it depends on the text whether they fit.

        Raises:
            ValueError: If the videos alone do not fit; the message says what would.
        """
        from lmms_eval_stgridpool.run.context_length import too_long  # noqa: PLC0415 - imports torch

        planner = self.planner()
        if planner is None or not isinstance(self.arguments, LlavaArguments):
            return ()
        own = self.arguments
        found = too_long(planner, own.build_compressor(), own.compressor, own.most_frames)
        if found is not None and found.is_certain:
            raise ValueError(found.text)
        return () if found is None else (found.text,)


def _class_for(model: str | None, given: Mapping[str, Any], settings: Mapping[str, Any] | None) -> type[Arguments]:
    """Return the class of the arguments of the model that runs the checkpoint.

    Raises:
        ValueError: If there is no model of that name, or another one runs the checkpoint.
    """
    if model is not None and model not in ARGUMENTS:
        raise ValueError(f"there is no model {model!r}{suggestion(model, ARGUMENTS)}")
    runs = None if settings is None else model_for(settings, given["pretrained"])
    if model is not None and runs is not None and model != runs:
        raise ValueError(f"--model {model} does not run {given['pretrained']}: use --model {runs}")
    return ARGUMENTS[model or runs or LLAVA]


def _check_packages(arguments: Arguments) -> None:
    for (name, value), (module, package, instead) in _PACKAGES.items():
        if getattr(arguments, name) == value and find_spec(module) is None:
            raise ValueError(f"{name}={value} needs a package: pip install {package}, or set {name}={instead}")
