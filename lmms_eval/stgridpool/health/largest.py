"""The largest number that meets a condition, which a method may leave open for some numbers."""

from collections.abc import Callable

NEAR = 64
"""Maximum number of neighbouring frame counts that a method may refuse, or whose token counts may go up and down."""


def largest(holds: Callable[[int], bool | None], most: int) -> int | None:
    """Return the largest number from 1 to `most` for which `holds`; None if there is none.

    Args:
        holds: True up to some number and false above it, apart from `NEAR` numbers on each side of it, as methods round
            their counts; None for a number that a method refuses, which counts as the next smaller one that it takes.
        most: The largest number to try.
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        found = (holds(number) for number in range(middle, max(middle - NEAR, 0), -1))
        is_false = next((one for one in found if one is not None), True) is False
        low, high = (low, middle) if is_false else (middle, high)
    candidates = range(min(low + NEAR, most), max(low - NEAR, 0), -1)
    return next((number for number in candidates if holds(number)), None)
