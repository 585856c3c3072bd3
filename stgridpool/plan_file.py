"""Plans in safetensors files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stgridpool.rows import Rows

if TYPE_CHECKING:
    from stgridpool.plan import Plan

_PARTS = ("sources", "offsets", "weights")
_KEY = "stgridpool.plan"


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan to a safetensors file."""
    from safetensors.torch import save_file  # noqa: PLC0415  # only here

    tensors = {"anchor": plan.anchor}
    for name, rows in {"rows": plan.rows, **{f"made.{level}": rows for level, rows in enumerate(plan.made)}}.items():
        tensors |= {f"{name}.{part}": getattr(rows, part) for part in _PARTS}
    facts = {"num_sources": plan.num_sources, "shape": plan.shape, "reproduces": plan.reproduces}
    stored = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}  # two names may share memory
    save_file(stored, path, {_KEY: json.dumps(facts)})


def plan_fields(path: str | Path) -> dict[str, Any]:
    """Read the fields of a plan that `save_plan` wrote, by their names in `Plan`.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file does not contain a plan.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # only here

    missing = f"{path} does not contain a plan written by stgridpool"
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dictionary
    except SafetensorError as error:
        raise ValueError(f"{missing}: {error}") from error
    if facts is None or not {"anchor", *(f"rows.{part}" for part in _PARTS)} <= tensors.keys():
        raise ValueError(missing)

    def rows(name: str) -> Rows:
        return Rows(*(tensors[f"{name}.{part}"] for part in _PARTS))

    num_levels = sum(name.startswith("made.") for name in tensors) // len(_PARTS)
    return {
        "rows": rows("rows"),
        "num_sources": facts["num_sources"],
        "anchor": tensors["anchor"],
        "made": tuple(rows(f"made.{level}") for level in range(num_levels)),
        "shape": facts["shape"] and tuple(facts["shape"]),
        "reproduces": facts["reproduces"],
    }
