"""Training-free compression of the visual tokens of Video LLMs.

A `Compressor` decides, its `Plan` is the decision as a sparse matrix, and `compress` carries it out.
"""

from stgridpool.budget import Budget
from stgridpool.chain import Chain
from stgridpool.compressor import Compressed, Compressor, Step, compress
from stgridpool.compressors import COMPRESSORS, build_compressor
from stgridpool.compressors.adaptive_pool import AdaptivePool
from stgridpool.compressors.average import Average
from stgridpool.compressors.bilinear import Bilinear
from stgridpool.compressors.divprune import DivPrune
from stgridpool.compressors.downsample import Downsample
from stgridpool.compressors.fastervlm import FasterVLM
from stgridpool.compressors.fastv import FastV
from stgridpool.compressors.max import Max
from stgridpool.compressors.none import NoCompression
from stgridpool.compressors.norm_topk import NormTopK
from stgridpool.compressors.nsp import NSP
from stgridpool.compressors.prumerge import PruMerge
from stgridpool.compressors.prumerge_plus import PruMergePlus
from stgridpool.compressors.ptg import PTG
from stgridpool.compressors.pyramid_drop import PyramidDrop
from stgridpool.compressors.random import Random
from stgridpool.compressors.st_gridpool import STGridPool
from stgridpool.compressors.stride import Stride
from stgridpool.compressors.sttm import STTM
from stgridpool.compressors.temporal_average import TemporalAverage
from stgridpool.compressors.tome import ToMe
from stgridpool.compressors.visionzip import VisionZip
from stgridpool.evidence import Evidence, Need
from stgridpool.plan import Plan, Shape
from stgridpool.scorer import Budgeted, Scorer
from stgridpool.video_tokens import VideoTokens

__all__ = [
    "COMPRESSORS",
    "NSP",
    "PTG",
    "STTM",
    "AdaptivePool",
    "Average",
    "Bilinear",
    "Budget",
    "Budgeted",
    "Chain",
    "Compressed",
    "Compressor",
    "DivPrune",
    "Downsample",
    "Evidence",
    "FastV",
    "FasterVLM",
    "Max",
    "Need",
    "NoCompression",
    "NormTopK",
    "Plan",
    "PruMerge",
    "PruMergePlus",
    "PyramidDrop",
    "Random",
    "STGridPool",
    "Scorer",
    "Shape",
    "Step",
    "Stride",
    "TemporalAverage",
    "ToMe",
    "VideoTokens",
    "VisionZip",
    "build_compressor",
    "compress",
]
