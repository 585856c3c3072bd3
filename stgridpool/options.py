"""Checks of options: each returns the value, or raises an error that says what must hold and what came.

Options come from Python, from JSON and from a command line that turns words into numbers, so a value of the wrong type
is refused and never converted: "false" is not a flag, True is not 1, and NaN is not a number. Every range has two ends,
so that a typing mistake is an error before anything is loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any, TypeGuard

from stgridpool.suggestion import suggestion

Pair = tuple[int, int]
LONGEST_SIDE = 256
"""Largest number of tokens along a side of a frame that an option may name."""
LONGEST_QUOTE = 200
"""Characters of JSON that a message repeats: it may be a file."""


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """Return `value`, a whole number from `low` to `high`.

    Raises:
        ValueError: If it is something else; True and False are not numbers, and 2.0 is not a whole one.
    """
    if not _is_whole(value, low, high):
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    return value


def whole_numbers(name: str, value: object, low: int, high: int, most: int) -> tuple[int, ...]:
    """Return `value`, a list or tuple of at most `most` whole numbers from `low` to `high`, as a tuple.

    Raises:
        ValueError: If it is something else.
    """
    numbers = value if isinstance(value, list | tuple) and len(value) <= most else (None,)
    if not all(_is_whole(number, low, high) for number in numbers):
        raise ValueError(f"{name} must be a list of whole numbers from {low} to {high}, at most {most}, got {value!r}")
    return tuple(numbers)


def pair(name: str, value: object, low: int, high: int) -> Pair:
    """Return `value` for (rows, columns), whole numbers from `low` to `high`; one number stands for both.

    Raises:
        ValueError: If it is neither one nor two such numbers.
    """
    both = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(both) != 2 or not all(_is_whole(number, low, high) for number in both):
        raise ValueError(f"{name} must be a whole number from {low} to {high}, or (rows, columns), got {value!r}")
    return both


def number(name: str, value: object, low: float, high: float, unit: str = "") -> float:
    """Return `value`, a number from `low` to `high`, as a float.

    Args:
        name: Name of the option, for the message.
        value: Value of the option.
        low: Smallest number allowed.
        high: Largest number allowed.
        unit: Unit of the number, for the message.

    Raises:
        ValueError: If it is something else: text, True, False, NaN or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        of_unit = f" of {unit}" if unit else ""
        raise ValueError(f"{name} must be a number{of_unit} from {low:g} to {high:g}, got {value!r}")
    return float(value)


def fraction(name: str, value: object) -> float:
    """Return `value`, a number above 0 and at most 1, as a float.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} must be a number above 0 and at most 1, got {value!r}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """Return `value`, True or False.

    Raises:
        ValueError: If it is something else, such as "false" or 0.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False (in JSON true or false), got {value!r}")
    return value


def choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return `value`, one of `choices`.

    Raises:
        ValueError: If it is something else; the message suggests the nearest choice.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} cannot be {value!r}{suggestion(str(value), choices)}")
    return value


def text(name: str, value: object) -> str:
    """Return `value`, text that is not empty.

    Raises:
        ValueError: If it is not text, or is empty, as an unset shell variable is.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty; is it a shell variable that is not set?")
    return value


def json_object(name: str, given: str) -> dict[str, Any]:
    """Parse `given`, a JSON object in which every key is unique.

    Raises:
        ValueError: If it is not JSON, not an object, nested too deeply, or repeats a key.
    """
    try:
        options = json.loads(given, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply: {_beginning(given)!r}") from error
    except ValueError as error:
        raise ValueError(f"{name} must be JSON, got {_beginning(given)!r}: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f'{name} must be a JSON object such as {{"preset": "paper"}}, got {_beginning(given)}')
    return options


def _beginning(given: str) -> str:
    return given if len(given) <= LONGEST_QUOTE else f"{given[:LONGEST_QUOTE]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    options = dict(pairs)
    if len(options) < len(pairs):
        [(name, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is given twice; leave one out")
    return options


def _is_whole(value: object, low: int, high: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
