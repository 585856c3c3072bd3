"""The import path of `VideoSession` since version 0.1; it lives in `stgridpool.decoder.session`."""

from stgridpool.decoder.session import VideoSession

__all__ = ["VideoSession"]
