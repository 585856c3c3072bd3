"""The pooling of videos that checkpoints ask for, as a compressor."""

from stgridpool import Compressor, build_compressor

POOLING_MODES = ("average", "max", "bilinear")


def pooling_compressor(mode: str, stride: int = 2) -> Compressor:
    """The pooling that checkpoints do themselves, `mm_spatial_pool_mode`, as a compressor.

    `mm_spatial_pool_stride` has no effect in LLaVA-NeXT and none here: the stride is 2 unless given.

    Raises:
        ValueError: `mode` is unknown.
    """
    if mode not in POOLING_MODES:
        raise ValueError(f"mm_spatial_pool_mode must be one of {', '.join(POOLING_MODES)}, got {mode!r}")
    if mode == "bilinear":
        return build_compressor(mode, stride=stride)
    return build_compressor(mode, kernel_size=stride, stride=stride)
