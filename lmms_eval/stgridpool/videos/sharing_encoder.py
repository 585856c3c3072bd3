"""SharingEncoder: an encoder that the compressors of a sweep share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lmms_eval_stgridpool.videos.encoding import MediaEncoder
from lmms_eval_stgridpool.videos.feature_file import VideoFeatures
from lmms_eval_stgridpool.videos.last_made import LastMade
from stgridpool.timing import StageTimer


@dataclass(frozen=True, eq=False)
class SharingEncoder(MediaEncoder):
    """Keeps the features of the last question's videos for the next compressor.

    Attributes:
        last: These features.
    """

    last: LastMade[list[VideoFeatures]] = field(default_factory=LastMade)

    @classmethod
    def of(cls, plain: MediaEncoder) -> Self:
        """Make an encoder like `plain` that keeps the last features."""
        return cls(plain.model, plain.loader, plain.device, plain.cache)

    def features(self, paths: Sequence[Path], timer: StageTimer) -> list[VideoFeatures]:
        """Return the vision tower's features of videos, and compute them only for the first compressor that asks.

        Raises:
            VideoReadError: If a video cannot be read.
        """
        return self.last.get(tuple(paths), lambda: super(SharingEncoder, self).features(paths, timer))
