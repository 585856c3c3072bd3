"""STTM, multi-granular spatio-temporal token merging."""

from stgridpool.compressors.sttm.sttm import STTM

__all__ = ["STTM"]
