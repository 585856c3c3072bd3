"""Plans of several methods; what one of them cannot do is a remark and does not end the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmms_eval_stgridpool.comparison.choice import Choice, at_retentions, remarks_on
from lmms_eval_stgridpool.health.planned import Planned
from lmms_eval_stgridpool.health.planners import AnyPlanner


@dataclass(frozen=True)
class Methods:
    """Methods to plan.

    Attributes:
        choices: The methods.
        retention: Shares of the checkpoint's own tokens that they keep, 0 to 1; empty for their own options.
        retention_of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
    """

    choices: tuple[Choice, ...]
    retention: tuple[float, ...]
    retention_of: str

    def at(self, planner: AnyPlanner, frames: int) -> tuple[Sequence[Choice], list[str]]:
        """Return the methods with the options for a number of frames, and remarks on those that cannot be."""
        if not self.retention:
            return self.choices, []
        video = planner.outline(frames)
        return at_retentions(self.choices, self.retention, self.retention_of, video.reference, video.lattice_frames)


def plan_all(
    planner: AnyPlanner, methods: Methods, counts: Sequence[int]
) -> tuple[list[tuple[str, Planned]], list[str]]:
    """Plan every method for every number of frames.

    Args:
        planner: Counts the tokens of the checkpoint.
        methods: The methods.
        counts: Numbers of frames.

    Returns:
        The plans with the names of their methods, method by method, and remarks on those that cannot be made.
    """
    found: dict[str, list[Planned]] = {}
    remarks: list[str] = []
    for count in counts:
        choices, said = methods.at(planner, count)
        remarks += said
        for choice in choices:
            of_choice = found.setdefault(choice.folder, [])
            try:
                of_choice.append(planner.plan(choice.build(), count))
                video = planner.outline(count)
                remarks += remarks_on(choice, video.reference, video.lattice_frames)
            except ValueError as error:
                remarks.append(f"{choice.folder}, {count} frames: left out: {error}")
    plans = [(name, planned) for name, of_choice in found.items() for planned in of_choice]
    return plans, list(dict.fromkeys(remarks))


def fit_all(
    planner: AnyPlanner, methods: Methods, frames: int, most_tokens: int | None
) -> tuple[dict[str, int], list[str]]:
    """Say for every method how many frames fit into a number of tokens.

    Args:
        planner: Counts the tokens of the checkpoint.
        methods: The methods; their retention is met for `frames`.
        frames: A number of frames.
        most_tokens: Number of tokens, newlines included; None for not at all.

    Returns:
        Numbers of frames by the names of methods, and remarks on those for which there is none.
    """
    found: dict[str, int] = {}
    remarks: list[str] = []
    if most_tokens is None:
        return found, remarks
    for choice in methods.at(planner, frames)[0]:
        try:
            found[choice.folder] = planner.fit(choice.build(), most_tokens)
        except ValueError as error:
            remarks.append(f"{choice.folder}: {error}")
    if (most := planner.most_sampled) < max(found.values(), default=0):
        sampling = f"the checkpoint's sampling takes at most {most} frames of a video"
        remarks.append(f"{sampling}, unless --frames or fps changes that")
    return found, remarks
