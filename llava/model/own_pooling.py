"""The pooling of videos with which checkpoints were trained, as a compressor."""

from stgridpool import Compressor, build_compressor

POOLING_MODES = ("average", "max", "bilinear")


def pooling_compressor(mode: str, stride: int = 2) -> Compressor:
    """Make the compressor for a checkpoint's own pooling, `mm_spatial_pool_mode`.

    `mm_spatial_pool_stride` has no effect, as in LLaVA-NeXT: the stride is 2 by default.

    Raises:
        ValueError: If `mode` is unknown.
    """
    if mode not in POOLING_MODES:
        raise ValueError(f"mm_spatial_pool_mode must be one of {', '.join(POOLING_MODES)}, got {mode!r}")
    if mode == "bilinear":
        return build_compressor(mode, stride=stride)
    return build_compressor(mode, kernel_size=stride, stride=stride)
