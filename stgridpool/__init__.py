"""Training-free compression of the visual tokens of Video LLMs.

A `Compressor` decides, its `Plan` is the decision as a sparse matrix, and `Plan.apply` carries it out.
"""

from stgridpool.composed import Composed
from stgridpool.compressor import Budget, Compressed, Compressor
from stgridpool.compressors import COMPRESSORS, build_compressor
from stgridpool.compressors.average import Average
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.compressors.max import Max
from stgridpool.compressors.none import NoCompression
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.ptg import PTG
from stgridpool.compressors.st_gridpool import STGridPool
from stgridpool.compressors.sttm.sttm import STTM
from stgridpool.plan import Plan

__all__ = [
    "COMPRESSORS",
    "NSP",
    "PTG",
    "STTM",
    "Average",
    "Bilinear",
    "Budget",
    "Composed",
    "Compressed",
    "Compressor",
    "Max",
    "NoCompression",
    "Plan",
    "STGridPool",
    "build_compressor",
]
