"""One file per method; `COMPRESSORS` names them all."""

from __future__ import annotations

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
