r"""Evaluate several compressors on a task in one process, and compare them in a table.

Each video is decoded and encoded once for all compressors; only compressing and answering is done for each. What lies
in OUTPUT/COMPRESSOR afterwards, lmms-eval's results, samples and the record of the run, is what a run of its own would
have written. Its seconds leave out reading and encoding, which are printed apart.

Example:
  python scripts/sweep.py --tasks videomme --model_args pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64 \
    bilinear st_gridpool 'average:{"kernel_size":4}'
"""

import argparse
import json
import re
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from stgridpool.options import json_object

MODEL = "llava_video"
SHARED_STAGES = ("wait_for_video", "decode", "preprocess", "read_features", "vision", "write_features")
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Choice:
    """A compressor as the command line names it: NAME or NAME:OPTIONS, the options being a JSON object."""

    name: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Choice":
        """Read the words of the command line.

        Raises:
            argparse.ArgumentTypeError: If they name no compressor.
        """
        name, _, options = text.partition(":")
        try:
            choice = cls(name, json_object("its options", options or "{}"))
            choice.build()
        except (ValueError, TypeError) as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from error
        return choice

    def build(self) -> Compressor:
        """The compressor."""
        return build_compressor(self.name, **self.options)

    @property
    def folder(self) -> str:
        """What the run is called."""
        words = [self.name, *(f"{option}={value}" for option, value in self.options.items())]
        return re.sub(r"[^\w=.]+", "-", "_".join(words)).strip("-")

    @property
    def model_args(self) -> str:
        """What the compressor would be called in the --model_args of a run of its own."""
        options = json.dumps(self.options, separators=(",", ":"))
        return f"compressor={self.name}" + (f",compressor_args={options}" if self.options else "")


def evaluate(model: SweptModel, choice: Choice, arguments: Namespace, manager: TaskManager) -> list[Row]:
    """Run lmms-eval with one model and write what its command line writes.

    Args:
        model: The model.
        choice: Its compressor.
        arguments: Those of the command line.
        manager: Knows the tasks.

    Returns:
        A row for each task.
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
        summarise(choice.folder, task, record, of_task, results["results"][task]) for task, of_task in samples.items()
    ]


def main() -> None:
    """Parse the command line, evaluate, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "compressors", type=Choice.parse, nargs="+", metavar="COMPRESSOR", help='NAME or NAME:{"option":value}'
    )
    parser.add_argument("--tasks", required=True, help="names of tasks, separated by commas")
    parser.add_argument(
        "--model_args", required=True, help="arguments of llava_video, without compressor: pretrained=FOLDER,..."
    )
    parser.add_argument(
        "--include_path", type=path_argument, default=REPOSITORY / "custom_tasks", help="folder of further tasks"
    )
    parser.add_argument("--limit", type=float, help="only so many questions per task, for a try")
    parser.add_argument(
        "--output_path", type=path_argument, default=REPOSITORY / "logs" / "runs" / "sweep", help="where results go"
    )
    arguments = parser.parse_args()
    choices = arguments.compressors
    del arguments.compressors
    if len({choice.folder for choice in choices}) < len(choices):
        parser.error("a compressor is named twice")
    sweep = SweptModel.for_compressors([choice.build() for choice in choices], **parse_model_args(arguments.model_args))
    manager = TaskManager(include_path=str(arguments.include_path), model_name=MODEL)
    rows: list[Row] = []
    for model, choice in zip(sweep, choices, strict=True):
        rows += evaluate(model, choice, arguments, manager)
    show(rows, Console())
    record = sweep[0].run_record
    shared = sum(record["seconds"].get(stage, 0) for stage in SHARED_STAGES) / record["requests"]
    if any(row.failure for row in rows):
        parser.exit(1, f"sweep.py: a run failed, see above. Results, marked: {arguments.output_path}\n")
    print(f"Reading and encoding, once for all: {shared:.3f} seconds per question. Results: {arguments.output_path}")


if __name__ == "__main__":
    main()
