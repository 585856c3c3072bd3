"""The frames that lmms-eval's own models read, so that their answers can be compared with ours.

Source: the chat models ``qwen2_5_vl``, ``qwen3_vl`` and ``llava_hf`` of lmms-eval 0.7.3, and qwen_vl_utils 0.0.14, with
which the first two choose and resize frames.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from lmms_eval_stgridpool.run.native_arguments import LMMS_EVAL, NativeArguments
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.frame_rules import OwnRule, Source, spread
from stgridpool.adapters.native_loading import set_pixels

DEFAULT_MAX_FRAMES = 32
PIXELS = {"shortest_edge": 256 * 28 * 28, "longest_edge": 1605632}
"""Pixels of a frame, at least and at most, that lmms-eval's models of the Qwen families set."""

QWEN = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""Families whose frames lmms-eval's models choose with qwen_vl_utils."""

_MERGED = 2  # frames in a token, and patches along its side
_MIN_FRAMES, _MAX_FRAMES = 4, 768  # with a frame rate
_MAX_FRAME_TOKENS, _CONTEXT_TOKENS = 768, 128_000 * 0.9


@dataclass(frozen=True)
class AllFrames:
    """Every frame of a video, as ``llava_hf`` reads a path.

    Attributes:
        max_frames_num: Maximum number of frames, at least 1; more are spread evenly. None for no limit, as there.
    """

    max_frames_num: int | None = None

    def choose(self, source: Source) -> list[int]:
        """Return the indices of the frames to read."""
        return spread(source.num_frames, min(source.num_frames, self.max_frames_num or source.num_frames))

    def prepare(self, frames: NDArray[np.uint8]) -> tuple[Any, dict[str, Any]]:
        """Return the frames as they are."""
        return frames, {}


@dataclass(frozen=True)
class QwenFrames:
    """Frames as ``qwen2_5_vl`` and ``qwen3_vl`` choose and resize them.

    Attributes:
        patch_size: Side of a patch, in pixels.
        resizes_again: Whether the processor resizes the frames a second time, as in ``qwen2_5_vl``.
        max_frames_num: Maximum number of frames, at least 1.
        fps: Frames per second, above 0; None spreads `max_frames_num` frames evenly.
        pixels: Fewest and most pixels of a frame: "shortest_edge" and "longest_edge".
    """

    patch_size: int
    resizes_again: bool
    max_frames_num: int
    fps: float | None
    pixels: Mapping[str, int]

    def choose(self, source: Source) -> list[int]:
        """Return the indices of the frames to read, an even number; shorter videos repeat their first frame."""
        total = source.num_frames
        if total < _MERGED:
            return [0] * _MERGED
        count: float = min(self.max_frames_num, total)
        if self.fps is not None:
            most = min(_MAX_FRAMES if self.resizes_again else self.max_frames_num, total)
            count = min(max(total / source.frame_rate * self.fps, _MIN_FRAMES), most // _MERGED * _MERGED, total)
        return spread(total, max(math.floor(count / _MERGED) * _MERGED, _MERGED))

    def prepare(self, frames: NDArray[np.uint8]) -> tuple[Any, dict[str, Any]]:
        """Return the frames resized, (T, 3, h, w) float32, and whether the processor may resize them."""
        video = torch.as_tensor(frames).permute(0, 3, 1, 2)
        num_frames, _, height, width = video.shape
        size = self._size(height, width, num_frames)
        resized = resize(video, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True).float()
        return resized, {} if self.resizes_again else {"do_resize": False}

    def _size(self, height: int, width: int, num_frames: int) -> tuple[int, int]:
        """Return the size of frames: whole tokens, within the limits on pixels."""
        side = self.patch_size * _MERGED
        fewest = self.pixels["shortest_edge"]
        share = _CONTEXT_TOKENS * side * side / num_frames * _MERGED
        most = min(self.pixels["longest_edge"], max(min(_MAX_FRAME_TOKENS * side * side, share), int(fewest * 1.05)))
        rows, columns = (max(side, round(one / side) * side) for one in (height, width))
        if rows * columns > most:
            scale = math.sqrt(height * width / most)
            return _floor(height / scale, side), _floor(width / scale, side)
        if rows * columns < fewest:
            scale = math.sqrt(fewest / (height * width))
            return _ceil(height * scale, side), _ceil(width * scale, side)
        return rows, columns


def frame_rule(model: Any, processor: Any, arguments: NativeArguments) -> OwnRule | AllFrames | QwenFrames:
    """Return the rule by which a run chooses frames.

    Args:
        model: The model; its weights are not needed.
        processor: Its processor; the limits on pixels are set.
        arguments: The arguments of the run.

    Raises:
        ValueError: See `stock_rule` and `set_pixels`.
    """
    if arguments.sampling == LMMS_EVAL:
        return stock_rule(model.config.model_type, processor, arguments)
    set_pixels(processor, arguments.min_pixels, arguments.max_pixels)
    own = adapter_for(model).sampling
    return OwnRule(processor.video_processor, own, arguments.fps, arguments.max_frames_num)


def stock_rule(family: str, processor: Any, arguments: NativeArguments) -> AllFrames | QwenFrames:
    """Return the rule of lmms-eval's own model for a family.

    Args:
        family: `config.model_type` of the model.
        processor: Its processor; the limits on pixels are set, as lmms-eval's models do.
        arguments: The arguments of the run.

    Raises:
        ValueError: If there is no such model, or it has no such argument.
    """
    if family == "llava_onevision":
        if arguments.fps is not None:
            raise ValueError("sampling=lmms_eval reads all frames in this family, as llava_hf does: leave out fps")
        set_pixels(processor, arguments.min_pixels, arguments.max_pixels)
        return AllFrames(arguments.max_frames_num)
    if family not in QWEN:
        raise ValueError(
            f"sampling=lmms_eval supports {', '.join(('llava_onevision', *QWEN))}, not {family}: leave it out"
        )
    given = {"shortest_edge": arguments.min_pixels, "longest_edge": arguments.max_pixels}
    pixels = PIXELS | {name: value for name, value in given.items() if value is not None}
    resizes_again = family == "qwen2_5_vl"
    patch_size = 14 if resizes_again else 16  # fixed there, whatever the checkpoint says
    if resizes_again:
        set_pixels(processor, pixels["shortest_edge"], pixels["longest_edge"])
    most = arguments.max_frames_num or DEFAULT_MAX_FRAMES
    return QwenFrames(patch_size, resizes_again, most, arguments.fps, pixels)


def _floor(value: float, step: int) -> int:
    return math.floor(value / step) * step


def _ceil(value: float, step: int) -> int:
    return math.ceil(value / step) * step
