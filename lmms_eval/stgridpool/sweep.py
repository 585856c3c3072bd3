"""A sweep: several compressors evaluated in one process, which decodes and encodes each video only once.

Methods that change frames need features of their own, and have the video decoded once more.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from llava.video_opening import VideoReadError
from lmms_eval_stgridpool.comparison.choice import Choice
from lmms_eval_stgridpool.health.planning import Planner
from lmms_eval_stgridpool.llava_video import LlavaVideo
from lmms_eval_stgridpool.run.context_length import too_long
from lmms_eval_stgridpool.swept import Swept, UnmeasuredError
from lmms_eval_stgridpool.video_hf import VideoHf
from stgridpool import build_compressor
from stgridpool.adapters.native_model import NativeVideoModel
from stgridpool.adapters.native_video import from_tensors
from stgridpool.equal_budget import Reference
from stgridpool.timing import StageTimer

__all__ = ["SWEPT", "Swept", "SweptModel", "SweptNative"]


class SweptModel(Swept, LlavaVideo):
    """One compressor of a sweep over a checkpoint in LLaVA-NeXT's format."""

    def measured_against(self, videos: Callable[[], Sequence[Path]]) -> tuple[Reference, int]:  # noqa: ARG002
        """See `Swept`; it follows from the checkpoint."""
        return self.model.reference(), self.arguments.most_frames

    def own_choice(self) -> tuple[str, dict[str, Any]]:
        """See `Swept`; the pooling of a LLaVA checkpoint is a method of its own, while that of NVILA has no name."""
        mode = self.model.language_model.config.mm_spatial_pool_mode
        if build_compressor(mode) == self.model.own_pooling():
            return mode, {}
        return "none", {"own_pooling": True}

    def warn_of_length(self, choices: Sequence[Choice]) -> None:
        """See `Swept`."""
        if self.rank == 0:
            planner = Planner.of(self.arguments.pretrained, self.arguments.overwrites())
            for choice in choices:
                found = too_long(planner, choice.build(), choice.name, self.arguments.most_frames)
                if found is not None:
                    logger.warning(f"{choice.folder}: {found.text}")

    def _warn_of_own_length(self) -> None:
        """Leave it to `warn_of_length`: no question is answered with the compressor of the arguments."""


class SweptNative(Swept, VideoHf):
    """One compressor of a sweep over a native model."""

    model: NativeVideoModel

    def measured_against(self, videos: Callable[[], Sequence[Path]]) -> tuple[Reference, int]:
        """See `Swept`; budgets in windows are chosen for the size of the frames of the first video that can be read.

        Raises:
            UnmeasuredError: If none of them can be read.
            TypeError: If its features are not tensors by name.
        """
        unreadable = None
        for path in videos():
            try:
                [video] = self.encoder.features([path], StageTimer(self.device))
            except VideoReadError as error:
                unreadable = error
                continue
            self._forget_features()
            if isinstance(video.features, torch.Tensor):
                raise TypeError("features of a native model are tensors by name, got one tensor")
            return self.model.reference_for(video.features), len(from_tensors(video.features).tokens)
        raise UnmeasuredError(f"a retention is measured against a video, and none can be read: {unreadable}")

    def own_choice(self) -> tuple[str, dict[str, Any]]:
        """See `Swept`."""
        return "none", {}

    def warn_of_length(self, choices: Sequence[Choice]) -> None:
        """See `Swept`; prompts of native models have no limit."""


SWEPT: Mapping[str, type[Swept]] = {"llava_video": SweptModel, "video_hf": SweptNative}
"""The models of a sweep, by their names in lmms-eval."""
