"""The settings of STTM's published runs.

Source: STTM (ICCV 2025), arXiv 2507.07990, and its released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stgridpool.compressor import Compressor
from stgridpool.options import choice

_DATASETS = ("vnbench", "videomme", "egoschema", "nextqa", "longvideobench", "mlvu")
# For each data set the thresholds of the paper's run, spatial/temporal, or "-" if there was none.
_PUBLISHED = {
    "llava-video-7b/50": ".85/.65 .85/.55 .85/.55 .85/.65 .85/.60 .85/.55",
    "llava-video-7b/30": ".80/.60 .80/.50 .80/.60 .80/.65 .80/.55 .80/.55",
    "llava-onevision-7b/50": ".90/.65 .85/.65 .90/.60 .95/.65 .90/.60 .90/.55",
    "llava-onevision-7b/30": ".85/.65 .85/.55 .85/.60 .90/.60 .85/.60 .85/.60",
    "qwen2-vl-7b/50": ".80/.65 .85/.60 - - .85/.65 -",
    "qwen2-vl-7b/30": ".75/.50 .80/.60 - - .80/.60 -",
    "llava-video-72b/50": "- .94/.82 - - - -",
    "llava-video-72b/30": "- .90/.90 - - - -",
}


def published_settings() -> dict[str, dict[str, Any]]:
    """Return the options of each run by its name ``model/data set/budget``, and those of ``released``."""
    settings: dict[str, dict[str, Any]] = {}
    for run, row in _PUBLISHED.items():
        model, budget = run.split("/")
        for dataset, cell in zip(_DATASETS, row.split(), strict=True):
            if cell == "-":
                continue
            spatial, temporal = cell.split("/")
            settings[f"{model}/{dataset}/{budget}"] = {
                "spatial_threshold": float(spatial),
                "temporal_threshold": float(temporal),
                "root_level": 1,
                "layer": 0 if "72b" in model else 2,
                "mode": "released",
                "positions": "survive" if "qwen2-vl" in model else "reassign",
            }
    return {"released": settings["llava-video-7b/videomme/50"], **settings}


def settle(method: Compressor, preset: str | None, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Fill the options of a method that are missing from `preset`, and drop its name if an option differs from it.

    Raises:
        ValueError: If there is no such preset, or an option is missing without a preset.
    """
    missing = [name for name in presets["released"] if getattr(method, name) is None]
    if preset is None:
        if missing:
            raise ValueError(f"without a preset, {', '.join(missing)} must be given")
        return
    settings = presets[choice("preset", preset, presets)]
    for name in missing:
        object.__setattr__(method, name, settings[name])
    for field in fields(method)[1:]:
        if getattr(method, field.name) != settings.get(field.name, field.default):
            object.__setattr__(method, "preset", None)
