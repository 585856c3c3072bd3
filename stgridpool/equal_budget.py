"""Equal budgets: options that make a method keep a given share of the visual tokens, counted alike for all.

Methods count their budgets in different ways: as a fraction of what they see, as a mean over the layers of the language
model, or as a size of windows. `meet` turns one retention, by one definition, into each method's own options;
`planned_retention` computes the resulting retention by every definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stgridpool.budget import split_layer_average
from stgridpool.compressor import PATCHES, Compressor, Step, planned_counts
from stgridpool.options import Pair, choice, fraction
from stgridpool.plan import Shape
from stgridpool.retention import DEFINITIONS

LARGEST_WINDOW = 16
ENTERING, AVERAGE, LAST, READ = DEFINITIONS


@dataclass(frozen=True)
class Reference:
    """The reference for retention: a checkpoint's own tokens, newlines apart.

    Attributes:
        own_pooling: The checkpoint's own pooling.
        patches: Rows and columns of a frame after the projector.
        num_layers: Layers of the language model.
        num_frames: T of the one video that a budget is for; None if it is for videos of any length.
    """

    own_pooling: Compressor
    patches: tuple[int, int]
    num_layers: int
    num_frames: int | None = None

    def own_shape(self, num_frames: int) -> Shape:
        """Return the lattice (T, H, W) after its own pooling.

        Raises:
            ValueError: If that depends on the tokens.
        """
        shape = self.own_pooling.planned_shape((num_frames, *self.patches))
        if shape is None:
            raise ValueError(f"{self.own_pooling!r} leaves no lattice, so that nothing can be measured against it")
        return shape

    def own_count(self, num_frames: int) -> int:
        """Return the number of tokens after its own pooling."""
        frames, height, width = self.own_shape(num_frames)
        return frames * height * width

    def share_of_input(self, compressor: Compressor, share: float, of: str) -> float:
        """Return the fraction of its input that a method of one step must keep to leave `share` of the own tokens.

        Args:
            compressor: The method.
            share: Retention to meet.
            of: See `meet`.

        Raises:
            ValueError: If layers before it alone hold more, it acts too late to count, or there is no such layer.
        """
        check_layers(compressor.steps(), self.num_layers)
        place = compressor.steps()[0].place
        if place == PATCHES:
            height, width = self.patches
            return share * self.own_count(1) / (height * width)
        if not isinstance(place, int) or place == 0 or of == LAST:
            return share
        if of == ENTERING:
            raise ValueError(f"{type(compressor).__name__} acts at layer {place}: all tokens enter the language model")
        return split_layer_average(share, (place, self.num_layers - place), (None, 1))[1]

    def nearest(self, candidates: Iterable[Compressor], share: float) -> Compressor:
        """Return the method that comes nearest to `share` of the own tokens of a frame; of equally near ones the first.

        Args:
            candidates: Methods whose counts follow from sizes, at least one.
            share: Retention to meet.
        """
        wanted, frame = share * self.own_count(1), (1, *self.patches)
        return min(candidates, key=lambda one: abs((one.planned_count(frame) or 0) - wanted))


def meet(compressor: Compressor, retention: float, of: str, reference: Reference) -> Compressor:
    """Return the method with options that leave a share of the checkpoint's own tokens; see `Compressor.at_retention`.

    Args:
        compressor: The method.
        retention: Share to leave, above 0 and at most 1.
        of: Which retention, one of `stgridpool.retention.DEFINITIONS`.
        reference: The checkpoint.

    Raises:
        ValueError: If the method cannot leave that share by that definition; the message says why.
    """
    fraction("retention", retention)
    choice("retention_of", of, DEFINITIONS)
    met = compressor.at_retention(retention, of, reference).for_depth(reference.num_layers)
    check_layers(met.steps(), reference.num_layers)  # `steps` judges a mean over layers
    return met


def check_layers(steps: Sequence[Step], num_layers: int) -> None:
    """Check that the language model has the layers before which steps act.

    Args:
        steps: Of a method.
        num_layers: Layers of the language model.

    Raises:
        ValueError: If it does not.
    """
    for step in steps:
        if isinstance(step.place, int) and step.place >= num_layers:
            raise ValueError(
                f"{step.compressor!r} acts at layer {step.place}, and the language model has {num_layers} layers: "
                "choose an earlier one in its options"
            )


def window_sides() -> list[Pair]:
    """Return the sizes of windows to choose from, the squarest first: one side is at most twice the other."""
    lengths = range(1, LARGEST_WINDOW + 1)
    sides = [(rows, columns) for rows in lengths for columns in lengths if max(rows, columns) <= 2 * min(rows, columns)]
    return sorted(sides, key=lambda side: max(side) / min(side))


def planned_retention(
    compressor: Compressor, num_frames: int, reference: Reference, total: int | None = None
) -> dict[str, float | None]:
    """Return a method's retention by each of `DEFINITIONS`, as a fraction of the checkpoint's own tokens.

    None where the tokens decide. A generated token reads what entered each layer.

    Args:
        compressor: The method, its options for the depth of the model settled.
        num_frames: T, at least 1.
        reference: The checkpoint.
        total: See `planned_layers`.
    """
    entering = planned_layers(compressor, num_frames, reference, total)
    known = [count for count in entering if count is not None]
    own = reference.own_count(num_frames) if total is None else total
    is_known = len(known) == len(entering)
    average = sum(known) / len(entering) / own if is_known else None
    first, last = (None if count is None else count / own for count in (entering[0], entering[-1]))
    return {ENTERING: first, AVERAGE: average, LAST: last, READ: average}


def planned_layers(
    compressor: Compressor, num_frames: int, reference: Reference, total: int | None = None
) -> list[int | None]:
    """Return how many visual tokens enter each layer of the language model; None where the tokens decide.

    Args:
        compressor: See `planned_retention`.
        num_frames: T, at least 1.
        reference: The checkpoint.
        total: Number of tokens where the model itself drops some of them; None if they fill the lattice.

    Raises:
        ValueError: If the language model lacks a layer at which the method acts; see also `planned_counts`.
    """
    steps = compressor.steps()
    check_layers(steps, reference.num_layers)
    early = [step for step in steps if step.is_before_features]
    replaces_pooling = any(step.place == PATCHES for step in steps)
    before = (*early, *(() if replaces_pooling else reference.own_pooling.steps()))
    steps = steps[len(early) :]
    counts = planned_counts((*before, *steps), (num_frames, *reference.patches), total)
    entering: list[int | None] = []
    current = counts[len(before) - 1] if before else None
    counts = counts[len(before) :]
    waiting = list(zip(steps, counts, strict=True))
    for layer in range(reference.num_layers):
        while waiting and (not isinstance(waiting[0][0].place, int) or waiting[0][0].place <= layer):
            current = waiting.pop(0)[1]
        entering.append(current)
    return entering
