"""Choose a compression setting for a user's own videos: sweep, measure, recommend."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.comparison.finished_run import load_run
from lmms_eval_stgridpool.comparison.folders import kept_answers
from lmms_eval_stgridpool.comparison.outcome import Outcome
from lmms_eval_stgridpool.comparison.recommendation import Recommendation, check_aim, default_tolerance, recommend
from lmms_eval_stgridpool.comparison.settings import BYTES_PER_MB, Setting, measure
from lmms_eval_stgridpool.comparison.sweeping import OWN, Sweep
from lmms_eval_stgridpool.kept.paths import folder_name
from lmms_eval_stgridpool.questions.path_videos import questions_about
from lmms_eval_stgridpool.questions.video_table import TableQuestion, write_table
from lmms_eval_stgridpool.run.model_args import check_passable, parse_model_args
from lmms_eval_stgridpool.run.table_tasks import paths_digest
from stgridpool.options import fraction


def output_folder(
    runs: Path, inputs: Sequence[Path], checkpoint: str, model_args: str, options: Mapping[str, object]
) -> Path:
    """Return where a search with these options writes unless told otherwise: others write elsewhere.

    Args:
        runs: The folder of all runs.
        inputs: See `Chooser`; those of one name in two places have two folders.
        checkpoint: Folder or hub name.
        model_args: Further arguments of the model.
        options: Further options by name; None for a default.

    Raises:
        ValueError: If `model_args` cannot be read.
    """
    named = inputs[0].stem if len(inputs) == 1 else f"{inputs[0].stem}_and_{len(inputs) - 1}"
    if (folder := Path(checkpoint)).is_dir():
        checkpoint = f"{folder.resolve().name}_{paths_digest([folder])}"
    given = {**parse_model_args(model_args), **options}
    words = [f"{name}={value}" for name, value in given.items() if name != "resume_dir" and value is not None]
    return runs / folder_name([named, paths_digest(inputs)]) / folder_name(["choose", checkpoint, *words])


@dataclass(frozen=True)
class Chosen:
    """What was measured, and what follows.

    Attributes:
        settings: The uncompressed model first, then each setting.
        recommendation: One of them.
        tolerance: Largest loss that was accepted, 0 to 1.
        questions: Number of questions that every setting answered.
        asked: Number of questions.
        videos: Number of videos.
        remarks: Settings that were left out, or miss their retention, and why.
    """

    settings: tuple[Setting, ...]
    recommendation: Recommendation
    tolerance: float
    questions: int
    asked: int
    videos: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Chooser:
    """The search for a setting.

    Attributes:
        inputs: See `questions.path_videos.questions_about`.
        model: The lmms-eval model, "llava_video" or "video_hf".
        model_args: Its arguments without the compressor.
        methods: The methods.
        retention: Shares of the model's own tokens to keep, 0 to 1; empty for the methods' own options.
        retention_of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
        output: Folder for results, answers and the choice; a search that was stopped resumes there.
        tolerance: Largest loss to accept, 0 to 1; None for `default_tolerance`.
        cost: What to save, one of `recommendation.COSTS`.

    Raises:
        ValueError: If an option is out of range, or the output folder's path cannot be passed to lmms-eval.
    """

    inputs: tuple[Path, ...]
    model: str
    model_args: str
    methods: tuple[Choice, ...]
    retention: tuple[float, ...]
    retention_of: str
    output: Path
    tolerance: float | None = None
    cost: str = "seconds"

    def __post_init__(self) -> None:
        check_aim(self.tolerance, self.cost)
        for share in self.retention:
            fraction("--retention", share)
        check_passable("--output", str(self.output))

    @property
    def kept(self) -> str:
        """What there is to go on with where the search is stopped."""
        return kept_answers(self.model_args, self.output)

    def run(self) -> Chosen | None:
        """Evaluate every setting, and recommend one; None on other ranks than the first.

        Raises:
            FileNotFoundError: If a table or a folder holds nothing.
            ValueError: If the table is not as it must be, or nothing could be measured.
        """
        questions = questions_about(self.inputs)
        table = self.output / "questions.jsonl"
        write_table(table, questions)
        outcome = self._sweep(table).run()
        if not outcome.is_first:
            return None
        if outcome.failed:
            raise ValueError(next(row.failure for row in outcome.rows if row.failure))
        found = self._chosen(outcome, questions)
        text = json.dumps(asdict(found), indent=2, ensure_ascii=False)
        (self.output / "choice.json").write_text(text + "\n", encoding="utf-8")
        return found

    def _sweep(self, table: Path) -> Sweep:
        return Sweep(
            self.methods,
            str(table),
            self.model_args,
            self.output,
            self.retention,
            self.retention_of,
            model=self.model,
            has_own=True,
        )

    def _chosen(self, outcome: Outcome, questions: Sequence[TableQuestion]) -> Chosen:
        runs = {}
        for row in outcome.rows:
            [runs[row.run]] = load_run(self.output / row.run).samples.values()
        named = {one.folder: one.model_args for one in outcome.choices}
        settings = [
            replace(one, peak_gpu_mb=None if peak is None else peak / BYTES_PER_MB)
            for one in measure(runs, OWN, named, outcome.kv_bytes_per_token)
            for peak in [outcome.peak_bytes.get(one.run)]
        ]
        tolerance = default_tolerance(settings) if self.tolerance is None else self.tolerance
        return Chosen(
            tuple(settings),
            recommend(settings, tolerance, self.cost),
            tolerance,
            settings[0].loss.count,
            len(questions),
            len({question.video for question in questions}),
            outcome.remarks,
        )
