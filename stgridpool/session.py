"""The public import path of `VideoSession`, which is defined in `stgridpool.decoder.session`."""

from stgridpool.decoder.session import VideoSession

__all__ = ["VideoSession"]
