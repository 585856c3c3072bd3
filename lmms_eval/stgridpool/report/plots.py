"""The plots of a report."""

from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmms_eval_stgridpool.report.runs import TaskRun

TOLERANCE = 1.05  # of equal tokens
BLUE, GREY = "#2a6fdb", "#9aa4b2"


def scatter(runs: Sequence[TaskRun], costs: Sequence[float], label: str) -> Figure:
    """Plot accuracy with its interval against a cost; a line joins the runs that no other one dominates."""
    figure, axes = _axes(7, 4.5)
    for run, cost in zip(runs, costs, strict=True):
        axes.errorbar(
            cost, run.score, yerr=run.interval or 0, fmt="o", color=BLUE, ecolor=GREY, capsize=2, markersize=5
        )
    for run, cost, height in _labels(runs, costs):
        axes.annotate(run.run, (cost, height), xytext=(6, 3), textcoords="offset points", fontsize=7)
    front = pareto([(cost, run.score) for run, cost in zip(runs, costs, strict=True)])
    axes.plot(*zip(*front, strict=True), color=BLUE, linewidth=1, alpha=0.5, drawstyle="steps-post")
    axes.set_xlabel(label)
    axes.set_ylabel(runs[0].metric)
    if min(costs) > 0 and max(costs) / min(costs) > 20:
        axes.set_xscale("log")
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, score) of the Pareto front: none is cheaper and as good, or better at the same cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def groups_of_equal_tokens(runs: Sequence[TaskRun]) -> list[list[TaskRun]]:
    """Return groups of runs of equal tokens per video, within 5 %, that saw different numbers of frames."""
    groups: list[list[TaskRun]] = []
    for run in sorted(runs, key=lambda one: one.tokens or 0):
        if groups and (run.tokens or 0) <= TOLERANCE * (groups[-1][0].tokens or 0):
            groups[-1].append(run)
        else:
            groups.append([run])
    return [group for group in groups if len({run.frames for run in group}) > 1]


def frames(groups: Sequence[Sequence[TaskRun]]) -> Figure:
    """Plot accuracy against frames, a line per group; of runs with equally many frames the best one is on it."""
    figure, axes = _axes(7, 4.5)
    for group in groups:
        ordered = sorted(group, key=lambda run: (run.frames or 0, -run.score))
        best = [next(of_count) for _, of_count in groupby(ordered, key=lambda run: run.frames)]
        axes.plot(
            [run.frames or 0 for run in best], [run.score for run in best], "o-", label=f"{best[0].tokens:,.0f} tokens"
        )
    axes.set_xlabel("frames")
    axes.set_ylabel(groups[0][0].metric)
    axes.legend(fontsize=8)
    return figure


def stages(runs: Sequence[TaskRun]) -> Figure:
    """Plot the seconds per question of each run as a bar of stages."""
    figure, axes = _axes(7, 1.2 + 0.35 * len(runs))
    names = list(dict.fromkeys(stage for run in runs for stage in run.seconds))
    left = [0.0] * len(runs)
    for stage in names:
        widths = [run.seconds.get(stage, 0.0) for run in runs]
        axes.barh([run.run for run in runs], widths, left=left, label=stage.replace("_", " "))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds per question")
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _labels(runs: Sequence[TaskRun], costs: Sequence[float]) -> list[tuple[TaskRun, float, float]]:
    """Return the height of each point's label: that of the point, or higher where it would cover another label."""
    gap = 0.03 * (max(run.score for run in runs) - min(run.score for run in runs))
    near = 0.15 * (max(costs) - min(costs))
    placed: list[tuple[TaskRun, float, float]] = []
    for run, cost in sorted(zip(runs, costs, strict=True), key=lambda point: point[0].score):
        beside = [height for _, other, height in placed if abs(other - cost) <= near]
        placed.append((run, cost, max([run.score, *(height + gap for height in beside if height + gap > run.score)])))
    return placed


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    return figure, axes
