"""Prefetching of videos for native models, whose processors take a whole clip with the times of its frames."""

from pathlib import Path
from typing import Any

from llava.frame_list import FrameList
from llava.video import VideoClip
from lmms_eval_stgridpool.videos.prefetch import VideoLoader
from stgridpool.adapters.frame_rules import Source
from stgridpool.distinct_frames import DistinctFrames
from stgridpool.model import Tensors


class NativeLoader(VideoLoader):
    """Prefetches videos for a native model; see `VideoLoader`.

    The frames are listed first, the rule of the recipe chooses among them, and a reading process decodes these.
    """

    def _options(self, path: Path) -> dict[str, Any]:
        source = _source(self._reader.list_frames(path))
        options: dict[str, Any] = {"indices": self._recipe.rule.choose(source)}
        return options if path.is_dir() else options | {"backend": self._arguments.video_decode_backend}

    def _prepare(self, clip: VideoClip) -> tuple[Tensors, DistinctFrames | None]:
        return self._recipe.inputs(clip.frames, clip.indices, Source(clip.num_frames, clip.frame_rate)), None


def _source(listed: FrameList) -> Source:
    return Source(listed.num_frames, listed.frame_rate)
