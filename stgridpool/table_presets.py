"""Presets that several methods share: the budgets of a published comparison.

`nvila/30` and `nvila/50` are those of the comparison on NVILA, at 30 % and 50 % of the tokens: methods that act
before the language model keep that share, and those that act inside it keep it in the mean over its layers.
ST-GridPool is listed at 30 % there with its released windows, which leave a quarter of the tokens of a frame; it has no
row at 50 %.

Source: ST-GridPool (ICLR 2026), arXiv 2605.22078; ST-SimDiff for 50 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_IN_FRONT, _INSIDE = ("prumerge", "fastervlm", "visionzip"), ("fastv", "framefusion", "st_simdiff")


def _budgets(share: float) -> dict[str, dict[str, Any]]:
    in_front = {name: {"retention": share} for name in _IN_FRONT}
    return in_front | {name: {"layer_average": share} for name in _INSIDE}


TABLE_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "nvila/30": _budgets(0.3) | {"st_gridpool": {"preset": "released"}},
    "nvila/50": _budgets(0.5),
}
"""Options by the name of the preset and of the method."""


def with_table_preset(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method with a preset of `TABLE_PRESETS` replaced by what it stands for.

    Raises:
        ValueError: If the method is not in that table.
    """
    preset = options.get("preset")
    if not isinstance(preset, str) or preset not in TABLE_PRESETS:
        return dict(options)
    if method not in TABLE_PRESETS[preset]:
        raise ValueError(f"{method} has no preset {preset!r}; these have: {', '.join(TABLE_PRESETS[preset])}")
    return TABLE_PRESETS[preset][method] | {name: value for name, value in options.items() if name != "preset"}


def table_presets(method: str) -> tuple[str, ...]:
    """Name the presets of `TABLE_PRESETS` that a method has."""
    return tuple(name for name, methods in TABLE_PRESETS.items() if method in methods)
