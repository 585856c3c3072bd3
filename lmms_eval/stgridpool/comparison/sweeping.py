"""A sweep from its options to its files and the rows of its table."""

import gc
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import get_datetime_str
from loguru import logger

from lmms_eval_stgridpool.comparison.choice import Choice, at_retentions, check_choices, remarks_on_all
from lmms_eval_stgridpool.comparison.folders import answers_folder, kept_answers
from lmms_eval_stgridpool.comparison.outcome import Outcome, published_beside, shared_seconds
from lmms_eval_stgridpool.comparison.rows import Row, summarise
from lmms_eval_stgridpool.kept.output import RunFiles, mark
from lmms_eval_stgridpool.questions.task_videos import videos_of_tasks
from lmms_eval_stgridpool.run.checkpoint_checks import LLAVA, model_of
from lmms_eval_stgridpool.run.evaluation import results_folder
from lmms_eval_stgridpool.run.model_args import check_passable, parse_model_args
from lmms_eval_stgridpool.run.offline_tasks import task_manager
from lmms_eval_stgridpool.run.progress import log_progress
from lmms_eval_stgridpool.run.table_tasks import with_tables
from lmms_eval_stgridpool.sweep import SWEPT, Swept
from lmms_eval_stgridpool.swept import UnmeasuredError
from stgridpool.retention import DEFINITIONS

OWN = "uncompressed"
"""Name of the run of the checkpoint as it is."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep evaluates.

    Attributes:
        choices: The compressors, at least one, each once.
        tasks: Names of tasks, or paths of a user's own tables, separated by commas.
        model_args: Arguments of the model without the compressor, as for lmms-eval.
        output_path: Where results go; each compressor gets a folder there. Answers are kept there, too, unless
            `model_args` name another folder for them.
        retention: Shares of the checkpoint's own tokens to keep, 0 to 1; empty for the options as they are.
        retention_of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
        include_path: Folder of further tasks, or None.
        limit: Maximum number of questions per task, or None.
        model: The lmms-eval model, "llava_video" or "video_hf"; None for the one that runs the checkpoint.
        has_own: Whether to evaluate the checkpoint as it is first, under the name `OWN`.

    Raises:
        ValueError: See `check_choices`; or if lmms-eval cannot be told the output path.
    """

    choices: tuple[Choice, ...]
    tasks: str
    model_args: str
    output_path: Path
    retention: tuple[float, ...] = ()
    retention_of: str = DEFINITIONS[0]
    include_path: Path | None = None
    limit: float | None = None
    model: str | None = None
    has_own: bool = False

    def __post_init__(self) -> None:
        check_choices(self.choices, self.model_args)
        check_passable("--output_path", str(self.output_path))

    @cached_property
    def model_name(self) -> str:
        """The lmms-eval model that runs the checkpoint.

        Raises:
            ValueError: If `model_args` name no checkpoint that one of our models runs.
        """
        return self.model or model_of(parse_model_args(self.model_args))

    @property
    def kept(self) -> str:
        """What there is to go on with where the sweep is stopped."""
        return kept_answers(self.model_args, self.output_path)

    @property
    def _all_args(self) -> str:
        """The arguments of the model with the folder of its answers."""
        given = parse_model_args(self.model_args)
        answers = [] if "resume_dir" in given else [f"resume_dir={answers_folder(self.model_args, self.output_path)}"]
        return ",".join([self.model_args, *answers])

    @property
    def retention_shown(self) -> str:
        """The definition of retention for the table: the one held equal, or what enters the last layer."""
        return self.retention_of if self.retention else "last_layer"

    def run(self) -> Outcome:
        """Evaluate all compressors and write their files."""
        names, tables = with_tables(self.tasks, self.output_path)
        include = [*tables, *([self.include_path] if self.include_path else [])]
        manager = task_manager(names, include, self.model_name)
        # lmms-eval collects garbage twice after each task of each compressor: 0.5 s each among what has been imported.
        gc.collect()
        gc.freeze()
        loaded = self._load()

        @cache
        def videos() -> tuple[Path, ...]:
            return tuple(dict.fromkeys(videos_of_tasks(names, manager)))

        if self.has_own:
            loaded.warm_up(videos()[0])
        choices, remarks = self._measured(loaded, videos)
        if self.has_own:
            choices.insert(0, Choice(*loaded.own_choice(), OWN))
        if not choices:
            return Outcome((), tuple(remarks), 0.0, is_first=loaded.rank == 0)
        loaded.warn_of_length(choices)
        log_progress()
        models = loaded.for_each([choice.build() for choice in choices])
        rows: list[Row] = []
        for number, (model, choice) in enumerate(zip(models, choices, strict=True), 1):
            rows += self._evaluate(model, choice, names, manager)
            if loaded.rank == 0:
                logger.info(f"Scored: {number}/{len(models)}, {choice.folder}")
            if model.budget_missed is not None:
                remarks.append(f"{choice.folder}: left out: {model.budget_missed}")
        beside = published_beside(rows, choices, loaded.arguments.pretrained)
        return Outcome(
            tuple(rows),
            tuple(remarks),
            shared_seconds([model.run_record for model in models]),
            beside,
            loaded.rank == 0,
            tuple(choices),
            loaded.kv_bytes_per_token,
            {choice.folder: model.peak_bytes for model, choice in zip(models, choices, strict=True)},
        )

    def _load(self) -> Swept:
        """Load the model; native models of some families cannot run the compressor that is otherwise the default."""
        own = {} if self.model_name == LLAVA else {"compressor": "none"}
        return SWEPT[self.model_name](**parse_model_args(self._all_args) | own)

    def _measured(self, loaded: Swept, videos: Callable[[], Sequence[Path]]) -> tuple[list[Choice], list[str]]:
        """Return the compressors, with options for every retention that is asked for, and remarks on their budgets."""
        if self.retention:
            reference, frames = loaded.measured_against(videos)
            return at_retentions(self.choices, self.retention, self.retention_of, reference, frames)
        choices = list(self.choices)
        try:
            return choices, remarks_on_all(choices, *loaded.measured_against(videos))
        except UnmeasuredError:  # the run itself says that it can read no video
            return choices, []

    def _evaluate(self, model: Swept, choice: Choice, names: list[str], manager: TaskManager) -> list[Row]:
        """Run lmms-eval with one model and write the same files as its command line.

        Args:
            model: The model.
            choice: Its compressor.
            names: Names of the tasks.
            manager: Knows the tasks.

        Returns:
            A row for each task; none, and no files, if the compressor could not meet its budget on a video.
        """
        command = self._command(choice)
        tracker = EvaluationTracker(output_path=command.output_path)
        time = get_datetime_str()
        files = RunFiles.claim(results_folder(command) or self.output_path, time) if model.rank == 0 else None
        results: dict[str, Any] = simple_evaluate(
            model=model,
            model_args=command.model_args,
            tasks=names,
            batch_size=1,
            limit=self.limit,
            log_samples=True,
            task_manager=manager,
            cli_args=command,
            datetime_str=time,
        )
        if files is None:
            return []
        record, verdict = model.run_record, model.verdict
        if model.budget_missed is not None or record is None or verdict is None:
            files.give_up()
            return []
        results["config"]["model"] = self.model_name
        tracker.general_config_tracker.log_experiment_args(self.model_name, command.model_args, "", "", False)
        samples = results.pop("samples")
        _save(tracker, results, samples, time)
        files.write(record)
        mark(files.results, verdict)
        return [
            summarise(choice.folder, task, record, of_task, results["results"][task], self.retention_shown)
            for task, of_task in samples.items()
        ]

    def _command(self, choice: Choice) -> Namespace:
        """Return the command line that lmms-eval records for one compressor."""
        command = Namespace(**vars(self) | {"model": self.model_name}, process_with_media=False)
        del command.choices, command.has_own, command.model_name
        command.output_path = str(self.output_path / choice.folder)
        command.model_args = f"{self._all_args},{choice.model_args}"
        return command


def _save(tracker: EvaluationTracker, results: dict[str, Any], samples: Mapping[str, Any], time: str) -> None:
    """Write results and samples as lmms-eval's command line does."""
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str=time)
    for task, of_task in samples.items():
        tracker.save_results_samples(task_name=task, samples=of_task)
