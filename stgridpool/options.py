"""Checks of options: each returns the value, or says what must hold and what came.

Options come from Python, from JSON and from a command line that turns words into numbers, so a value of the wrong type
is refused and never converted: "false" is no flag, True is not 1, and NaN is no number. Every range has two ends, so
that a slip of the keyboard is an error before anything is loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from stgridpool.suggestion import suggestion

Pair = tuple[int, int]
LONGEST_SIDE = 256
"""Most tokens along a side of a frame that an option may name."""


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """Return `value`, a whole number from `low` to `high`.

    Raises:
        ValueError: If it is something else; True and False are no numbers, and 2.0 is no whole one.
    """
    if not _is_whole(value, low, high):
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    return value


def whole_numbers(name: str, value: Any, low: int, high: int, most: int) -> tuple[int, ...]:
    """Return `value`, a list or tuple of at most `most` whole numbers from `low` to `high`, as a tuple.

    Raises:
        ValueError: If it is something else.
    """
    is_list = isinstance(value, list | tuple) and len(value) <= most
    if not is_list or not all(_is_whole(number, low, high) for number in value):
        raise ValueError(f"{name} must be a list of whole numbers from {low} to {high}, at most {most}, got {value!r}")
    return tuple(value)


def pair(name: str, value: Any, low: int, high: int) -> Pair:
    """Return `value` for (rows, columns), whole numbers from `low` to `high`; one number stands for both.

    Raises:
        ValueError: If it is neither one nor two such numbers.
    """
    both = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(both) != 2 or not all(_is_whole(number, low, high) for number in both):
        raise ValueError(f"{name} must be a whole number from {low} to {high}, or (rows, columns), got {value!r}")
    return both


def number(name: str, value: Any, low: float, high: float, unit: str = "") -> float:
    """Return `value`, a number from `low` to `high`, as a float.

    Args:
        name: What to call it.
        value: What came.
        low: The smallest number allowed.
        high: The largest number allowed.
        unit: What the number counts, for the message.

    Raises:
        ValueError: If it is something else: text, True, False, NaN or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        of_unit = f" of {unit}" if unit else ""
        raise ValueError(f"{name} must be a number{of_unit} from {low:g} to {high:g}, got {value!r}")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Return `value`, a number above 0 and at most 1, as a float.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} must be a number above 0 and at most 1, got {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Return `value`, True or False.

    Raises:
        ValueError: If it is something else, such as "false" or 0.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False (in JSON true or false), got {value!r}")
    return value


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value`, one of `choices`.

    Raises:
        ValueError: If it is something else; the message suggests the nearest one.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} cannot be {value!r}{suggestion(str(value), choices)}")
    return value


def text(name: str, value: Any) -> str:
    """Return `value`, text that is not empty.

    Raises:
        ValueError: If it is empty, as an unset variable of a shell is, or something else.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty; is it a shell variable that is not set?")
    return value


def json_object(name: str, given: str) -> dict[str, Any]:
    """Read `given`, a JSON object, in which no name stands twice.

    Raises:
        ValueError: If it is not JSON, not an object, nested too deeply, or names a key twice.
    """
    try:
        options = json.loads(given, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply: {given[:80]!r}...") from error
    except ValueError as error:
        raise ValueError(f"{name} must be JSON, got {given!r}: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f'{name} must be a JSON object such as {{"preset": "paper"}}, got {options!r}')
    return options


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    options = dict(pairs)
    if len(options) < len(pairs):
        [(name, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is given twice, leave one out")
    return options


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
