"""One file per method; `COMPRESSORS` names them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stgridpool.compressor import Compressor
from stgridpool.compressors.average import Average
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.compressors.max import Max
from stgridpool.compressors.none import NoCompression
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.ptg import PTG
from stgridpool.compressors.st_gridpool import STGridPool
from stgridpool.suggestion import suggestion

COMPRESSORS: dict[str, type[Compressor]] = {
    "none": NoCompression,
    "average": Average,
    "bilinear": Bilinear,
    "max": Max,
    "nsp": NSP,
    "ptg": PTG,
    "st_gridpool": STGridPool,
}


def build_compressor(name: str, **options: Any) -> Compressor:
    """The method called `name` with `options`, which may come from JSON.

    Raises:
        ValueError: if there is no such method or option (the message names the nearest one), or an option is out of
            its range.
    """
    if name not in COMPRESSORS:
        raise ValueError(f"there is no compressor {name!r}{suggestion(name, COMPRESSORS)}")
    method = COMPRESSORS[name]
    known = [field.name for field in fields(method) if field.init]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}{suggestion(option, known)}")
    return method(**options)


def build_compressors(names: str, options: Mapping[str, Any] | None = None) -> tuple[Compressor, ...]:
    """One method, or two joined by ``+``, such as ``st_gridpool+sttm``: in front of the language model, and inside it.

    Args:
        names: As in `COMPRESSORS`.
        options: Those of the one method; of two methods, a mapping of options under the name of each.

    Raises:
        ValueError: As `build_compressor`, or if options are given for a method that is not named.
    """
    parts, options = names.split("+"), options or {}
    if len(parts) == 1:
        return (build_compressor(names, **options),)
    for name, value in options.items():
        if name not in parts or not isinstance(value, Mapping):
            example = {part: {} for part in parts}
            raise ValueError(f"the options of {names!r} go under the name of each, {example}, got {dict(options)}")
    return tuple(build_compressor(name, **options.get(name, {})) for name in parts)
