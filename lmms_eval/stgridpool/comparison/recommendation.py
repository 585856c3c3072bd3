"""One setting among those measured, and the sentence that says why."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmms_eval_stgridpool.comparison.settings import Setting
from stgridpool.options import choice, fraction

COSTS = {"seconds": "seconds", "cache": "cache_mb"}
"""What a setting may save, and the attribute of `Setting` that measures it."""


@dataclass(frozen=True)
class Recommendation:
    """A recommended setting.

    Attributes:
        run: Name of its run.
        sentence: Why.
    """

    run: str
    sentence: str


def check_aim(tolerance: float | None, cost: str) -> None:
    """Check what a search for a setting accepts, and what it is to save.

    Args:
        tolerance: Most loss to accept, 0 to 1; None for `default_tolerance`.
        cost: What to save, one of `COSTS`.

    Raises:
        ValueError: If one of them is out of its range.
    """
    choice("--save", cost, tuple(COSTS))
    if tolerance is not None and tolerance != 0:
        fraction("--tolerance", tolerance)


def default_tolerance(settings: Sequence[Setting]) -> float:
    """Return the loss to accept unless told otherwise: 2 points of accuracy, or 10 of agreement, which is stricter."""
    return 0.02 if settings[0].accuracy is not None else 0.1


def recommend(settings: Sequence[Setting], tolerance: float, cost: str) -> Recommendation:
    """Choose the cheapest setting that loses at most `tolerance`.

    Args:
        settings: The settings; the first is the uncompressed model.
        tolerance: Largest loss to accept, 0 to 1.
        cost: What to save, one of `COSTS`.
    """
    own, *others = settings
    good = [one for one in others if one.loss.value <= tolerance]
    name, attribute = _quality(settings), COSTS[cost]
    chosen = min([own, *good], key=lambda one: getattr(one, attribute).value)
    points = f"{100 * tolerance:g} points of {name}"
    if chosen is own:
        if good:
            why = f"no setting that loses at most {points} needs less"
        elif others:
            nearest = min(others, key=lambda one: one.loss.value)
            why = f"every setting loses more than {points}; {nearest.run} comes nearest, with {_loss(nearest)}"
        else:
            why = "there is nothing to compare it with"
        return Recommendation(own.run, f"Recommended: no compression: {why}.")
    shares = (chosen.seconds.value / own.seconds.value, chosen.cache_mb.value / own.cache_mb.value)
    sentence = (
        f"Recommended: {chosen.run} ({chosen.model_args}): of {len(good)} that lose at most {points} it "
        f"needs the least {'time' if cost == 'seconds' else cost}: {shares[0]:.0%} of the uncompressed model's seconds "
        f"and {shares[1]:.0%} of its cache; it loses {_loss(chosen)} points on {chosen.loss.count} questions."
    )
    if chosen.loss.upper > tolerance:
        sentence += f" Its loss may be more than {100 * tolerance:g} points: ask about more videos to be sure."
    return Recommendation(chosen.run, sentence)


def _quality(settings: Sequence[Setting]) -> str:
    names = [name for name in ("accuracy", "agreement") if getattr(settings[0], name) is not None]
    return " and ".join(names)


def _loss(setting: Setting) -> str:
    interval = "" if setting.loss.interval is None else f" ± {100 * setting.loss.interval:.1f}"
    return f"{100 * setting.loss.value:.1f}{interval}"
