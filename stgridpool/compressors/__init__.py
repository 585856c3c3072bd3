"""One file per method; `COMPRESSORS` names them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stgridpool.chain import Chain
from stgridpool.compressor import Compressor
from stgridpool.compressors.adaptive_pool import AdaptivePool
from stgridpool.compressors.aot import AOT
from stgridpool.compressors.average import Average
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.compressors.cdpruner import CDPruner
from stgridpool.compressors.divprune import DivPrune
from stgridpool.compressors.downsample import Downsample
from stgridpool.compressors.dycoke_ttm import DyCokeTTM
from stgridpool.compressors.earlytom import EarlyTom
from stgridpool.compressors.earlytom_frames import EarlyTomFrames
from stgridpool.compressors.evs import EVS
from stgridpool.compressors.fastervlm import FasterVLM
from stgridpool.compressors.fastv import FastV
from stgridpool.compressors.fastvid import FastVID
from stgridpool.compressors.flashvid.flashvid import FlashVID
from stgridpool.compressors.framefusion import FrameFusion
from stgridpool.compressors.framefusion_merge import FrameFusionMerge
from stgridpool.compressors.holitom.holitom import HoliTom
from stgridpool.compressors.image_grid import ImageGrid
from stgridpool.compressors.llava_scissor import LLaVAScissor
from stgridpool.compressors.max import Max
from stgridpool.compressors.none import NoCompression
from stgridpool.compressors.norm_topk import NormTopK
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.oracle_frames import OracleFrames
from stgridpool.compressors.per_segment import PerSegment
from stgridpool.compressors.prumerge import PruMerge
from stgridpool.compressors.prumerge_plus import PruMergePlus
from stgridpool.compressors.prunevid.prunevid import PruneVid
from stgridpool.compressors.ptg import PTG
from stgridpool.compressors.pyramid_drop import PyramidDrop
from stgridpool.compressors.random import Random
from stgridpool.compressors.recycle import Recycle
from stgridpool.compressors.slowfast import SlowFast
from stgridpool.compressors.sparsevlm import SparseVLM
from stgridpool.compressors.st_gridpool import STGridPool
from stgridpool.compressors.st_simdiff.st_simdiff import STSimDiff
from stgridpool.compressors.stride import Stride
from stgridpool.compressors.sttm.sttm import STTM
from stgridpool.compressors.temporal_average import TemporalAverage
from stgridpool.compressors.tome import ToMe
from stgridpool.compressors.ts_llava import TSLLaVA
from stgridpool.compressors.vidcom2 import VidCom2
from stgridpool.compressors.visionzip import VisionZip
from stgridpool.elsewhere import find_method, installed_names
from stgridpool.scorer import BUDGETS
from stgridpool.suggestion import suggestion
from stgridpool.table_presets import table_presets, with_table_preset

COMPRESSORS: dict[str, type[Compressor]] = {
    "none": NoCompression,
    "image_grid": ImageGrid,
    "average": Average,
    "bilinear": Bilinear,
    "adaptive_pool": AdaptivePool,
    "slowfast": SlowFast,
    "max": Max,
    "nsp": NSP,
    "ptg": PTG,
    "st_gridpool": STGridPool,
    "sttm": STTM,
    "random": Random,
    "stride": Stride,
    "temporal_average": TemporalAverage,
    "oracle_frames": OracleFrames,
    "downsample": Downsample,
    "ts_llava": TSLLaVA,
    "norm_topk": NormTopK,
    "fastervlm": FasterVLM,
    "visionzip": VisionZip,
    "evs": EVS,
    "divprune": DivPrune,
    "prumerge": PruMerge,
    "prumerge_plus": PruMergePlus,
    "llava_scissor": LLaVAScissor,
    "cdpruner": CDPruner,
    "aot": AOT,
    "fastv": FastV,
    "pyramid_drop": PyramidDrop,
    "recycle": Recycle,
    "per_segment": PerSegment,
    "sparsevlm": SparseVLM,
    "tome": ToMe,
    "dycoke_ttm": DyCokeTTM,
    "framefusion_merge": FrameFusionMerge,
    "framefusion": FrameFusion,
    "vidcom2": VidCom2,
    "fastvid": FastVID,
    "flashvid": FlashVID,
    "holitom": HoliTom,
    "earlytom_frames": EarlyTomFrames,
    "earlytom": EarlyTom,
    "prunevid": PruneVid,
    "st_simdiff": STSimDiff,
}


def build_compressor(name: str, **options: Any) -> Compressor:
    """Build the method called `name` with `options`, which may come from JSON.

    Names joined by ``+``, such as ``bilinear+visionzip+fastv``, make a chain of methods. The options of each method
    then go under its name: ``build_compressor("st_gridpool+sttm", sttm={"retention": 0.3})``. A method of another
    package is called ``my.module:MyMethod``, or by its entry point in the group ``stgridpool.compressors``.

    Raises:
        ValueError: If there is no such method or option (the message names the nearest one, or says why the method
            takes no budget), or an option is out of its range.
    """
    if "+" in name:
        return _build_chain(name, options)
    method = COMPRESSORS.get(name) or find_method(name)
    if method is None:
        raise ValueError(f"there is no compressor {name!r}{suggestion(name, [*COMPRESSORS, *installed_names()])}")
    options = with_table_preset(name, options)
    known = [field.name for field in fields(method) if field.init]
    for option in options:
        if option not in known:
            why = method.without_budget if option in BUDGETS else ""
            raise ValueError(f"{name} has no option {option!r}{f': {why}' if why else suggestion(option, known)}")
    return method(**options)


def presets(name: str) -> tuple[str, ...]:
    """Name the presets of the method called `name`, which its option `preset` takes; none for most methods.

    Raises:
        ValueError: If there is no such method.
    """
    if name not in COMPRESSORS:
        raise ValueError(f"there is no compressor {name!r}{suggestion(name, COMPRESSORS)}")
    return (*getattr(COMPRESSORS[name], "PRESETS", ()), *table_presets(name))


def _build_chain(names: str, options: Mapping[str, Any]) -> Chain:
    parts = names.split("+")
    if len(set(parts)) < len(parts):
        raise ValueError(f"{names!r} names a method twice; join different ones")
    for part, value in options.items():
        if part not in parts or not isinstance(value, Mapping):
            example: dict[str, dict[str, Any]] = {part: {} for part in parts}
            raise ValueError(
                f"the options of each method in {names!r} go under its name, as in {example}, got {dict(options)}"
            )
    return Chain(tuple(build_compressor(part, **options.get(part, {})) for part in parts))
