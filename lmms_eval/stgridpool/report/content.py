"""What a report says, whatever its format."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from matplotlib.figure import Figure

from lmms_eval_stgridpool.comparison.fingerprints import check_comparable
from lmms_eval_stgridpool.comparison.finished_run import FinishedRun
from lmms_eval_stgridpool.comparison.units import PERCENT, SHARE, unit_of
from lmms_eval_stgridpool.report import plots
from lmms_eval_stgridpool.report.differences import compare
from lmms_eval_stgridpool.report.examples import Example
from lmms_eval_stgridpool.report.kinds import scores_of_kinds, usual_fields
from lmms_eval_stgridpool.report.runs import TaskRun
from stgridpool.published import Published, published

VERSIONS = ("stgridpool", "lmms_eval", "torch", "transformers")
PAIRED = ("difference", "p", "better/worse", "answers that differ")
SWAPPED = 0.2  # share of answers that differ: a rate of compression changes a tenth, another checkpoint a quarter


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: Its heading.
        columns: Headings of the columns; the first is that of the rows' names.
        rows: Cells, one text per column.
        note: What the columns mean; may be empty.
        published: Numbers of rows, from 0, that are published and not ours.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    published: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plot:
    """A figure with a name, which is that of its file, and a caption."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    title: str
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    examples: Sequence[Example] = field(default=())


def make_report(
    runs: Sequence[TaskRun], baseline: str | None = None, by: Sequence[str] = (), sources: Sequence[str] = ()
) -> Report:
    """Put together tables, plots and warnings of runs.

    Args:
        runs: A row per task and run, at least one.
        baseline: Name of the run that others are compared with; None for the first one.
        by: Fields that divide questions into kinds, see `scores_of_kinds`; none for the usual ones.
        sources: Parts of the names of sources whose published numbers stand beside ours, such as "ST-GridPool".

    Raises:
        ValueError: If there is no run of the baseline's name, or no such source or field.
    """
    names = list(dict.fromkeys(run.run for run in runs))
    if baseline is not None and baseline not in names:
        raise ValueError(f"--baseline {baseline}: there is no such run, but {', '.join(names)}")
    report = Report("Report on " + ", ".join(dict.fromkeys(run.task for run in runs)), _warnings(runs))
    for task in dict.fromkeys(run.task for run in runs):
        of_task = [run for run in runs if run.task == task]
        reference = next((run for run in of_task if run.run == baseline), of_task[0])
        tables = [_runs_table(of_task, reference, _published(task, sources))]
        tables += [_kinds_table(of_task, kind) for kind in by or usual_fields(of_task)]
        warnings = [*report.warnings, *_swapped(of_task, reference)]
        report = replace(
            report,
            warnings=warnings,
            tables=[*report.tables, *tables],
            plots=[*report.plots, *_plots(task, of_task)],
        )
    return report


def _runs_table(runs: Sequence[TaskRun], baseline: TaskRun, beside: Sequence[Published]) -> Table:
    columns = "run", "frames", "tokens/video", "kept", "s/question", "no answer", "accuracy", *PAIRED
    rows = [_run_cells(run, baseline) for run in runs]
    mine = len(rows)
    for one in beside:
        kept = "-" if one.retention is None else f"{100 * one.retention:.0f} %"
        name = f"published: {one.method}, {one.checkpoint} ({one.source})"
        rows.append(
            [name, "-", "-", kept, "-", "-", f"{one.accuracy:.1f} ({one.whole:.1f} whole)", *["-"] * len(PAIRED)]
        )
    note = (
        f"Accuracy is {baseline.metric}; ± is half of a 95 % interval whose draws are videos. Differences are to "
        f"{baseline.run}, paired by question, with intervals and two-sided p-values that count the questions of a "
        "video as one draw. Kept: share of the checkpoint's own tokens at the last layer. Seconds: without reading and "
        "encoding in a sweep, which shares them."
    )
    return Table(f"{baseline.task}: runs", columns, rows, note, frozenset(range(mine, len(rows))))


def _run_cells(run: TaskRun, baseline: TaskRun) -> list[str]:
    unit = _unit(run)
    accuracy = "failed" if run.failure else _plus_minus(run.score, run.interval, unit)
    cells = [
        run.run,
        _number(run.frames, 1),
        _number(run.tokens, 0),
        "-" if run.retention is None else f"{100 * run.retention:.1f} %",
        _number(run.seconds_per_question, 3),
        str(run.unanswered),
        accuracy,
    ]
    found = None if run is baseline else compare(run, baseline)
    if found is None:
        return [*cells, *["-"] * len(PAIRED)]
    if found.score is None:
        return [*cells, "-", "-", "-", f"{100 * found.changed:.1f} %"]
    interval = None if found.interval is None else unit * found.interval
    return [
        *cells,
        _plus_minus(unit * found.score, interval, unit, signed=True),
        _p_value(found.p_value),
        f"{found.better}/{found.worse}",
        f"{100 * found.changed:.1f} %",
    ]


def _kinds_table(runs: Sequence[TaskRun], kind: str) -> Table:
    found = [scores_of_kinds(run, kind) for run in runs]
    names = list(dict.fromkeys(name for scores in found for name in scores))
    counts = {name: max(scores[name][1] for scores in found if name in scores) for name in names}
    rows = [
        [run.run, *(f"{_unit(run) * scores[name][0]:.1f}" if name in scores else "-" for name in names)]
        for run, scores in zip(runs, found, strict=True)
    ]
    return Table(f"{runs[0].task}: by {kind}", ["run", *(f"{name} ({counts[name]})" for name in names)], rows)


def _plots(task: str, runs: Sequence[TaskRun]) -> list[Plot]:
    counted = [run for run in runs if run.failure is None]
    found = []
    with_tokens = [run for run in counted if run.tokens is not None]
    if len(with_tokens) > 1:
        figure = plots.scatter(with_tokens, [run.tokens or 0 for run in with_tokens], "visual tokens per video")
        found.append(Plot(f"{task}_tokens", f"{task}: accuracy against tokens, with the Pareto front", figure))
    timed = [run for run in counted if run.seconds_per_question is not None]
    if len(timed) > 1:
        figure = plots.scatter(timed, [run.seconds_per_question or 0 for run in timed], "seconds per question")
        found.append(Plot(f"{task}_seconds", f"{task}: accuracy against seconds, with the Pareto front", figure))
    groups = plots.groups_of_equal_tokens(with_tokens)
    if groups:
        caption = (
            f"{task}: more frames at equal tokens (a line joins runs whose tokens per video differ by at most 5 %)"
        )
        found.append(Plot(f"{task}_frames", caption, plots.frames(groups)))
    if timed:
        found.append(Plot(f"{task}_stages", f"{task}: seconds per question by stage", plots.stages(timed)))
    return found


def _published(task: str, sources: Sequence[str]) -> list[Published]:
    known = published()
    for source in sources:
        if not any(source.lower() in one.source.lower() for one in known):
            names = ", ".join(dict.fromkeys(one.source for one in known))
            raise ValueError(f"--published {source}: no such source, but {names}")
    return [one for one in known if task in one.tasks and any(name.lower() in one.source.lower() for name in sources)]


def _warnings(runs: Sequence[TaskRun]) -> list[str]:
    found = [f"{run.run}, {run.task}: the run failed: {run.failure}" for run in runs if run.failure]
    found += [f"{run.run}, {run.task}: {run.unanswered} questions have no answer" for run in runs if run.unanswered]
    ours = {run.run: run for run in runs if "compressor" in run.record}
    finished = [
        FinishedRun(name, run.record, {}, {one.task: list(one.samples.values()) for one in runs if one.run == name})
        for name, run in ours.items()
    ]
    found += check_comparable(finished, anyway=True) if finished else []
    for package in VERSIONS:
        versions = {str(run.record.get("versions", {}).get(package)) for run in ours.values()}
        if len(versions) > 1:
            found.append(f"runs used different versions of {package}: {', '.join(sorted(versions))}")
    return list(dict.fromkeys(found))


def _swapped(runs: Sequence[TaskRun], baseline: TaskRun) -> list[str]:
    """Warn about runs whose answers differ so often that they may come from another checkpoint."""
    found = [(run.run, compare(run, baseline)) for run in runs if run is not baseline]
    return [
        f"{name}, {baseline.task}: {100 * one.changed:.0f} % of the answers differ from those of {baseline.run}; "
        "compression usually changes 5 to 9 %, another checkpoint over 20 %: are both the same?"
        for name, one in found
        if one is not None and one.changed > SWAPPED
    ]


def _unit(run: TaskRun) -> int:
    """Return 100 if a run's score is in percent, else 1; where nobody can tell, no share is above 1."""
    known = unit_of(run.metric, run.score, list(run.samples.values()))
    return known or (PERCENT if abs(run.score) > 1 else SHARE)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _plus_minus(value: float, interval: float | None, unit: int, signed: bool = False) -> str:
    digits = 1 if unit == 100 else 3
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text if interval is None else f"{text} ± {interval:.{digits}f}"


def _p_value(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
