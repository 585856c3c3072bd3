"""Rules for the settings of configurations, in words and as tests, and the check of settings by such rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers.activations import ACT2FN


@dataclass(frozen=True)
class Rule:
    """A rule for a setting.

    Attributes:
        words: What it must be, for messages.
        holds: Whether a value, as JSON holds it, is that.
    """

    words: str
    holds: Callable[[Any], bool]


def one_of(names: Iterable[Any]) -> Rule:
    """Make the rule that a setting is one of several values."""
    known = tuple(names)
    return Rule(f"one of {', '.join(map(str, known))}", lambda value: value in known)


COUNT = Rule("an integer of at least 1", lambda value: type(value) is int and value >= 1)
POSITIVE = Rule("a number above 0", lambda value: type(value) in (int, float) and 0 < value < math.inf)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
LAYERS = Rule("an integer from 1 to 1000", lambda value: type(value) is int and 1 <= value <= 1000)
ACTIVATION = Rule(
    "an activation that transformers knows, such as silu", lambda value: isinstance(value, str) and value in ACT2FN
)

NO_OTHER_WEIGHTS = Rule("left out: the weights are model.safetensors", lambda value: value is None)
"""For `transformers_weights`, a file that transformers would load instead of those whose headers are checked."""


def check_by_rules(settings: Mapping[str, Any], rules: Mapping[str, Rule], source: str) -> None:
    """Check settings by the rules for their names; null means "not set".

    Args:
        settings: Values by name.
        rules: Rules by name.
        source: Source of the settings, for messages.

    Raises:
        ValueError: If a value breaks its rule; the message has source, name and value.
    """
    for name, rule in rules.items():
        value = settings.get(name)
        if value is not None and not rule.holds(value):
            raise ValueError(f"{source}: {name} must be {rule.words}, got {value!r}")
