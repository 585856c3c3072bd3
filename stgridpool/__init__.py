"""Training-free compression of the visual tokens of Video LLMs.

A `Compressor` decides, its `Plan` is the decision as a sparse matrix, and `compress` carries it out.
"""

from stgridpool.budget import Budget
from stgridpool.chain import Chain
from stgridpool.compressor import Budgeted, Compressed, Compressor, Scorer, Step, compress
from stgridpool.compressors import COMPRESSORS, build_compressor
from stgridpool.compressors.average import Average
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.compressors.max import Max
from stgridpool.compressors.none import NoCompression
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.ptg import PTG
from stgridpool.compressors.st_gridpool import STGridPool
from stgridpool.compressors.sttm import STTM
from stgridpool.evidence import Evidence, Need
from stgridpool.plan import Plan, Shape
from stgridpool.video_tokens import VideoTokens

__all__ = [
    "COMPRESSORS",
    "NSP",
    "PTG",
    "STTM",
    "Average",
    "Bilinear",
    "Budget",
    "Budgeted",
    "Chain",
    "Compressed",
    "Compressor",
    "Evidence",
    "Max",
    "Need",
    "NoCompression",
    "Plan",
    "STGridPool",
    "Scorer",
    "Shape",
    "Step",
    "VideoTokens",
    "build_compressor",
    "compress",
]
