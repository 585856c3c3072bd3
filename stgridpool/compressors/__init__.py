"""One file per method; `COMPRESSORS` names them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stgridpool.composed import Composed
from stgridpool.compressor import Compressor
from stgridpool.compressors.average import Average
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.compressors.max import Max
from stgridpool.compressors.none import NoCompression
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.ptg import PTG
from stgridpool.compressors.st_gridpool import STGridPool
from stgridpool.compressors.sttm.sttm import STTM
from stgridpool.suggestion import suggestion

COMPRESSORS: dict[str, type[Compressor]] = {
    "none": NoCompression,
    "average": Average,
    "bilinear": Bilinear,
    "max": Max,
    "nsp": NSP,
    "ptg": PTG,
    "st_gridpool": STGridPool,
    "sttm": STTM,
}


def build_compressor(name: str, **options: Any) -> Compressor:
    """The method called `name` with `options`, which may come from JSON.

    Two names joined by ``+``, such as ``st_gridpool+sttm``, are a method in front of the language model and one inside
    it; their options go under the name of each: ``build_compressor("st_gridpool+sttm", sttm={"retention": 0.3})``.

    Raises:
        ValueError: if there is no such method or option (the message names the nearest one), or an option is out of
            its range.
    """
    if "+" in name:
        return _build_composed(name, options)
    if name not in COMPRESSORS:
        raise ValueError(f"there is no compressor {name!r}{suggestion(name, COMPRESSORS)}")
    method = COMPRESSORS[name]
    known = [field.name for field in fields(method) if field.init]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}{suggestion(option, known)}")
    return method(**options)


def _build_composed(names: str, options: Mapping[str, Any]) -> Composed:
    parts = names.split("+")
    if len(parts) != 2:
        raise ValueError(f"two methods can be joined, one in front of the language model and one inside, got {names!r}")
    for part, value in options.items():
        if part not in parts or not isinstance(value, Mapping):
            example: dict[str, dict] = {part: {} for part in parts}
            raise ValueError(f"the options of {names!r} go under the name of each, {example}, got {dict(options)}")
    return Composed(*(build_compressor(part, **options.get(part, {})) for part in parts))
