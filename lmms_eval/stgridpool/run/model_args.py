"""The text of ``--model_args``, split into arguments as lmms-eval does, which takes seconds to import."""

from collections.abc import Mapping
from typing import Any


def parse_model_args(text: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read ``--model_args`` as lmms-eval does, but refuse what it would misread silently.

    Args:
        text: NAME=VALUE,NAME=VALUE; commas within quotes, braces and brackets belong to the value.
        options: Other options of lmms-eval's command line, which are added to the arguments unless they are None.

    Raises:
        ValueError: If an entry has no ``=``, a name is given twice, a quote or brace is not closed, or an option
            contradicts an argument.
    """
    arguments: dict[str, Any] = {}
    for entry in _entries(text):
        name, equals, value = entry.partition("=")
        if not equals:
            raise ValueError(f"--model_args must be NAME=VALUE,NAME=VALUE, got {entry!r} without a value")
        if name in arguments:
            raise ValueError(f"{name} is given twice in --model_args: leave one out")
        arguments[name] = _value(value)
    for name, value in (options or {}).items():
        if value is not None and str(arguments.setdefault(name, value)) != str(value):
            raise ValueError(f"{name} is {arguments[name]!r} in --model_args and {value!r} in --{name}: leave one out")
    return arguments


def check_passable(name: str, value: str) -> None:
    """Check that a value comes through ``--model_args`` and lmms-eval's other lists of arguments as it is.

    Args:
        name: Name of the option, for messages.
        value: Its value, such as a path.

    Raises:
        ValueError: If it has a comma, a blank at its end, or a quote, brace or bracket without its partner.
    """
    try:
        is_whole = "," not in value and _entries(f"value={value}") == [f"value={value}"]
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"{name} must have neither a comma, nor a quote or bracket without its partner, nor a blank at its end, "
            f"got {value}: lmms-eval would take it apart; rename it, or name a link to it"
        )


def _value(text: str) -> str | bool | float:
    """Turn the words true and false and numbers into values, and leave everything else as text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def _entries(text: str) -> list[str]:
    """Split `text` at the commas outside quotes, braces and brackets, as lmms-eval does."""
    entries, start, depth, quote = [], 0, 0, ""
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[index - 1] != "\\" else quote
        elif character in "\"'":
            quote = character
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        elif character == "," and depth == 0:
            entries.append(text[start:index])
            start = index + 1
    if quote or depth:
        raise ValueError(f"--model_args: a quote, brace or bracket is not closed in {text!r}")
    return [entry.strip() for entry in [*entries, text[start:]] if entry.strip()]
