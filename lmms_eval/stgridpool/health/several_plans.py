"""Plans of several methods; what one of them cannot do is a remark and does not end the others."""

from collections.abc import Sequence

from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.health.planned import Planned
from lmms_eval_stgridpool.health.planning import Planner


def plan_all(
    planner: Planner, choices: Sequence[Choice], counts: Sequence[int]
) -> tuple[list[tuple[str, Planned]], list[str]]:
    """Plan every method for every number of frames.

    Args:
        planner: Counts the tokens of the checkpoint.
        choices: The methods.
        counts: Numbers of frames.

    Returns:
        The plans with the names of their methods, and remarks on those that cannot be made.
    """
    found: list[tuple[str, Planned]] = []
    remarks: list[str] = []
    for choice in choices:
        for count in counts:
            try:
                found.append((choice.folder, planner.plan(choice.build(), count)))
            except ValueError as error:
                remarks.append(f"{choice.folder}, {count} frames: left out: {error}")
    return found, remarks


def fit_all(planner: Planner, choices: Sequence[Choice], most_tokens: int | None) -> tuple[dict[str, int], list[str]]:
    """Say for every method how many frames fit into a number of tokens.

    Args:
        planner: Counts the tokens of the checkpoint.
        choices: The methods.
        most_tokens: Number of tokens, newlines included; None for not at all.

    Returns:
        Numbers of frames by the names of methods, and remarks on those for which there is none.
    """
    found: dict[str, int] = {}
    remarks: list[str] = []
    for choice in choices if most_tokens is not None else ():
        try:
            found[choice.folder] = planner.fit(choice.build(), most_tokens or 0)
        except ValueError as error:
            remarks.append(f"{choice.folder}: {error}")
    return found, remarks
