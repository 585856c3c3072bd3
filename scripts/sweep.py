r"""Evaluate several compressors on a task in one process, and compare them in a table.

Each video is decoded and encoded once for all compressors; only compression and answering are repeated.
OUTPUT/COMPRESSOR then holds the same files as a separate run would write: lmms-eval's results, the samples and the
record of the run. Its seconds exclude reading and encoding, which are printed separately.

Example:
  python scripts/sweep.py --tasks videomme --model_args pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64 \
    bilinear st_gridpool 'average:{"kernel_size":4}'

With --retention every compressor gets the options that make it keep that share of the tokens after the checkpoint's own
pooling, however it counts its own budget. Compressors that cannot do so are listed below the table.
"""

import json
import re
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import dropwhile, product
from pathlib import Path
from typing import Any

from lmms_eval_stgridpool.manifest import exit_without_own_llava

exit_without_own_llava()  # before the imports that would fail

from compare_runs import Row, show, summarise
from lmms_eval import utils
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager
from rich.console import Console

from lmms_eval_stgridpool.kept.output import RunFiles, mark
from lmms_eval_stgridpool.kept.paths import path_argument
from lmms_eval_stgridpool.run.evaluation import results_folder
from lmms_eval_stgridpool.run.model_args import parse_model_args
from lmms_eval_stgridpool.sweep import SweptModel
from stgridpool import Compressor, build_compressor
from stgridpool.chain import Chain
from stgridpool.equal_budget import Reference, meet, planned_retention
from stgridpool.options import json_object
from stgridpool.retention import DEFINITIONS

MODEL = "llava_video"
SHARED_STAGES = ("wait_for_video", "decode", "preprocess", "read_features", "vision", "write_features")
REPOSITORY = Path(__file__).resolve().parent.parent


def _options(name: str, method: Compressor) -> dict[str, Any]:
    """Return the options with which `name` builds `method`, without those that follow from the others."""
    options = json.loads(json.dumps({field.name: getattr(method, field.name) for field in fields(method)}))
    for option in tuple(options):
        fewer = {other: value for other, value in options.items() if other != option}
        if _builds(name, fewer, method):
            options = fewer
    return options


def _builds(name: str, options: Mapping[str, Any], method: Compressor) -> bool:
    """Return whether a name and options build a method equal to `method`."""
    try:
        return build_compressor(name, **options) == method
    except (ValueError, TypeError):  # a required option is left out
        return False


@dataclass(frozen=True)
class Choice:
    """A compressor as the command line names it: NAME or NAME:OPTIONS, the options being a JSON object."""

    name: str
    options: dict[str, Any]
    label: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Choice":
        """Read the words of the command line.

        Raises:
            ArgumentTypeError: If they name no compressor.
        """
        name, _, options = text.partition(":")
        try:
            choice = cls(name, json_object("its options", options or "{}"))
            choice.build()
        except (ValueError, TypeError) as error:
            raise ArgumentTypeError(f"{text}: {error}") from error
        return choice

    def at(self, retention: float, of: str, reference: Reference) -> "Choice":
        """Return the same method with options that leave `retention`, one of the definitions `of` retention.

        Raises:
            ValueError: If it cannot.
        """
        method = meet(self.build(), retention, of, reference)
        if isinstance(method, Chain):
            parts = zip(self.name.split("+"), method.methods, strict=True)
            options = {name: needed for name, one in parts if (needed := _options(name, one))}
        else:
            options = _options(self.name, method)
        return Choice(self.name, options, f"{self.folder}@{retention:g}")

    def build(self) -> Compressor:
        """Build the compressor."""
        return build_compressor(self.name, **self.options)

    @property
    def folder(self) -> str:
        """Return the name of the run."""
        if self.label is not None:
            return self.label
        words = [self.name, *(f"{option}={value}" for option, value in self.options.items())]
        return re.sub(r"[^\w=.]+", "-", "_".join(words)).strip("-")

    @property
    def model_args(self) -> str:
        """Return the compressor's name in the --model_args of a separate run."""
        options = json.dumps(self.options, separators=(",", ":"))
        return f"compressor={self.name}" + (f",compressor_args={options}" if self.options else "")


class Shares(Action):
    """Numbers, which compressors may follow: ``--retention 0.5 0.25 random nsp``."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None) -> None:
        """Keep the numbers, and the words behind them as compressors."""
        words = list(dropwhile(_is_number, values))
        shares = [float(value) for value in values[: len(values) - len(words)]]
        if not shares:
            parser.error(f"{option} needs a number, got {values[0]!r}")
        setattr(namespace, self.dest, shares)
        namespace.behind_retention = words


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def evaluate(model: SweptModel, choice: Choice, arguments: Namespace, manager: TaskManager) -> list[Row]:
    """Run lmms-eval with one model and write the same files as its command line.

    Args:
        model: The model.
        choice: Its compressor.
        arguments: Those of the command line.
        manager: Knows the tasks.

    Returns:
        A row for each task; none, and no files, if the compressor could not meet its budget on a video.
    """
    command = Namespace(**vars(arguments), model=MODEL, process_with_media=False)
    command.output_path = str(arguments.output_path / choice.folder)
    command.model_args = f"{arguments.model_args},{choice.model_args}"
    tracker = EvaluationTracker(output_path=command.output_path)
    time = utils.get_datetime_str()
    files = RunFiles.claim(results_folder(command), time)
    results = simple_evaluate(
        model=model,
        model_args=command.model_args,
        tasks=arguments.tasks.split(","),
        batch_size=1,
        limit=arguments.limit,
        log_samples=True,
        task_manager=manager,
        cli_args=command,
        datetime_str=time,
    )
    if model.budget_missed is not None:
        return []
    results["config"]["model"] = MODEL
    tracker.general_config_tracker.log_experiment_args(MODEL, command.model_args, None, None, False)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str=time)
    for task, of_task in samples.items():
        tracker.save_results_samples(task_name=task, samples=of_task)
    files.write(model.run_record)
    if model.verdict.failed:
        mark(files.results, model.verdict)
    record = model.run_record
    seconds = {stage: spent for stage, spent in record["seconds"].items() if stage not in SHARED_STAGES}
    record = record | {"seconds": seconds}
    return [
        summarise(choice.folder, task, record, of_task, results["results"][task], retention_shown(arguments))
        for task, of_task in samples.items()
    ]


def retention_shown(arguments: Namespace) -> str:
    """Return the definition of retention for the table: the one held equal, or what enters the last layer."""
    return arguments.retention_of if arguments.retention else "last_layer"


def at_retentions(
    choices: Sequence[Choice], arguments: Namespace, reference: Reference, num_frames: int
) -> tuple[list[Choice], list[str]]:
    """Give every compressor the options for every retention.

    Args:
        choices: The compressors.
        arguments: Those of the command line.
        reference: What retention is measured against.
        num_frames: Most frames of a video.

    Returns:
        The compressors that can leave it, retention by retention; and remarks on those that cannot, or not exactly.
    """
    found, remarks = [], []
    for retention, choice in product(arguments.retention, choices):
        try:
            one = choice.at(retention, arguments.retention_of, reference)
            left = planned_retention(one.build(), num_frames, reference)[arguments.retention_of]
        except ValueError as error:
            remarks.append(f"{choice.folder}@{retention:g}: left out: {error}")
            continue
        of_steps = len(one.build().steps())  # each rounds down by less than a token
        if left is not None and abs(left - retention) * reference.own_count(num_frames) >= of_steps:
            remarks.append(f"{one.folder}: leaves {100 * left:.1f} %: it comes in whole sizes, and this is the nearest")
        found.append(one)
    return found, remarks


def main() -> None:
    """Parse the command line, evaluate, and print the comparison."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "compressors", type=Choice.parse, nargs="*", metavar="COMPRESSOR", help='NAME or NAME:{"option":value}'
    )
    parser.add_argument("--tasks", required=True, help="names of tasks, separated by commas")
    parser.add_argument(
        "--model_args", required=True, help="arguments of llava_video, without compressor: pretrained=FOLDER,..."
    )
    parser.add_argument(
        "--retention", action=Shares, nargs="+", help="shares of the checkpoint's own tokens to keep, 0 to 1"
    )
    parser.add_argument(
        "--retention-of", choices=DEFINITIONS, default=DEFINITIONS[0], help="which retention (default: %(default)s)"
    )
    parser.add_argument(
        "--include_path", type=path_argument, default=REPOSITORY / "custom_tasks", help="folder of further tasks"
    )
    parser.add_argument("--limit", type=float, help="most questions per task, for a trial run")
    parser.add_argument(
        "--output_path", type=path_argument, default=REPOSITORY / "logs" / "runs" / "sweep", help="where results go"
    )
    parser.set_defaults(behind_retention=[])
    arguments = parser.parse_args()
    try:
        choices = arguments.compressors + [Choice.parse(word) for word in arguments.behind_retention]
    except ArgumentTypeError as error:
        parser.error(str(error))
    del arguments.compressors, arguments.behind_retention
    if not choices:
        parser.error("name at least one compressor")
    if len({choice.folder for choice in choices}) < len(choices):
        parser.error("a compressor is named twice")
    loaded = SweptModel(**parse_model_args(arguments.model_args))
    remarks: list[str] = []
    if arguments.retention:
        reference = loaded.model.reference()
        choices, remarks = at_retentions(choices, arguments, reference, loaded.arguments.max_frames_num)
        if not choices:
            parser.error("; ".join(remarks))
    sweep = loaded.for_each([choice.build() for choice in choices])
    manager = TaskManager(include_path=str(arguments.include_path), model_name=MODEL)
    rows: list[Row] = []
    for model, choice in zip(sweep, choices, strict=True):
        rows += evaluate(model, choice, arguments, manager)
        if model.budget_missed is not None:
            remarks.append(f"{choice.folder}: left out: {model.budget_missed}")
    if not rows:
        parser.exit(1, "sweep.py: no compressor could meet its budget: " + "; ".join(remarks) + "\n")
    show(rows, Console(), retention_shown(arguments))
    print(*remarks, sep="\n")
    record = sweep[0].run_record
    shared = sum(record["seconds"].get(stage, 0) for stage in SHARED_STAGES) / record["requests"]
    if any(row.failure for row in rows):
        parser.exit(1, f"sweep.py: a run failed, see above. Results, marked: {arguments.output_path}\n")
    print(f"Reading and encoding, once for all: {shared:.3f} seconds per question. Results: {arguments.output_path}")


if __name__ == "__main__":
    main()
