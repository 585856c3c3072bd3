"""Families that encode the frames of a video as images, and give both the same placeholder."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import Tensor

from stgridpool.adapters.adapter import IMAGE, VIDEO, Adapter, Clips, EncodedVisual, Inputs
from stgridpool.adapters.token_blocks import blocks_of_tokens
from stgridpool.plan import Shape

logger = logging.getLogger(__name__)
_DIGITS = 3  # at most, by which the numbers of frames of a video differ in length


class FramesAsImagesAdapter(Adapter):
    """Frames and images are pictures of H x W tokens each, in the order of the prompt.

    Neither ids nor pixels tell frames from images, so `Clips` must where a prompt has images or several videos. Without
    them, all pictures of a prompt are taken for frames of one video and compressed, which is logged where it is
    doubtful: if there is a single picture, or the text between them differs in length.
    """

    video_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    image_inputs: ClassVar[tuple[str, ...]] = ()
    is_one_run: ClassVar[bool] = False

    def slots(self, model: Any, inputs: Inputs, kind: str = VIDEO) -> Tensor:
        """Tell which positions are placeholders of pictures: (B, L) bool."""
        return super().slots(model, inputs, IMAGE)

    def pictures(self, model: Any, inputs: Inputs) -> Tensor:
        """Encode all pictures: (F, H * W, D)."""
        raise NotImplementedError(f"{type(self).__name__} must define pictures")

    def encode(self, model: Any, inputs: Inputs, clips: Clips | None = None) -> list[EncodedVisual]:
        """Encode all pictures and assign them to videos and images.

        Raises:
            ValueError: If a prompt without clips has an image, or clips do not match the prompts.
        """
        _check_clips(inputs, clips)
        pictures = self.pictures(model, inputs)
        side = math.isqrt(pictures.shape[1])
        visuals = self._visuals(model, inputs, clips, pictures.shape[1])
        counts = [count for _, count in visuals]
        if sum(counts) != len(pictures):
            raise ValueError(
                f"the prompts have placeholders for {sum(counts)} pictures, but there are {len(pictures)}; do not "
                "truncate prompts, and pass the whole output of one call of the processor"
            )
        tokens = pictures.unflatten(1, (side, side)).split(counts)
        return [EncodedVisual(own, kind=kind) for own, (kind, _) in zip(tokens, visuals, strict=True)]

    def is_frame(self, model: Any, inputs: Inputs, clips: Clips | None) -> Sequence[bool] | None:
        """Tell which pictures are frames, see `Adapter.is_frame`; without clips, all are taken for frames.

        Raises:
            ValueError: If clips do not match the prompts.
        """
        if clips is None:
            return None
        _check_clips(inputs, clips)
        visuals = self._visuals(model, inputs, clips, self.side(model) ** 2)
        return [kind == VIDEO for kind, count in visuals for _ in range(count)]

    def _visuals(self, model: Any, inputs: Inputs, clips: Clips | None, size: int) -> list[tuple[str, int]]:
        """Return kind and number of pictures of each visual of all prompts, given the number of tokens of a picture."""
        visuals = []
        for row, is_slot in enumerate(self.slots(model, inputs)):
            runs = [len(list(run)) // size for is_picture, run in groupby(is_slot.tolist()) if is_picture]
            if clips is None:
                _check_one_video(row, is_slot)
            visuals += _visuals(row, runs, None if clips is None else clips[row])
        return visuals

    def side(self, model: Any) -> int:
        """Return the number of tokens along a side of a picture."""
        raise NotImplementedError(f"{type(self).__name__} must define side")

    def source_shape(self, model: Any, video: Inputs) -> Shape:
        """Return (T, H, W) of the tokens; video processors name the frames by what they are, or as the model does."""
        pixels: Tensor = next(video[name] for name in ("pixel_values_videos", "pixel_values") if name in video)
        side = self.side(model)
        return pixels.shape[1], side, side

    def tower_rows(
        self, model: Any, inputs: Inputs, kind: str, rows: Tensor, visuals: Sequence[EncodedVisual]
    ) -> list[Tensor]:
        """Assign rows of patches to visuals; a block of them makes a token, after the class token of a picture."""
        pictures = sum(len(visual.tokens) for visual in visuals)
        patches = math.isqrt(len(rows) // pictures) ** 2
        rows = rows.unflatten(0, (pictures, -1))[:, -patches:].flatten(0, 1)
        rows = blocks_of_tokens(rows, visuals[0].tokens.shape[2], patches)
        return super().tower_rows(model, inputs, kind, rows, visuals)


def _check_clips(inputs: Inputs, clips: Clips | None) -> None:
    batch = len(inputs["input_ids"])
    if clips is not None and len(clips) != batch:
        raise ValueError(f"clips must have one entry for each of the {batch} prompts, got {len(clips)}")


def _check_one_video(row: int, is_slot: Tensor) -> None:
    """Log that pictures are taken for one video where they may be images; between frames stands a number or a time."""
    places = is_slot.nonzero().flatten()
    gaps = places.diff()
    gaps = gaps[gaps > 1]
    if len(places) and (not len(gaps) or int(gaps.max() - gaps.min()) > _DIGITS):
        logger.warning(
            "prompt %d: its %d pictures are compressed as frames of one video; if they are images, pass clips, such as "
            '[[("image", 1), ("video", 8)]]',
            row,
            len(gaps) + 1,
        )


def _visuals(row: int, runs: Sequence[int], clips: Sequence[tuple[str, int]] | None) -> list[tuple[str, int]]:
    """Return kind and number of pictures of each visual of a prompt, given the pictures of each run."""
    if clips is None:
        if any(count > 1 for count in runs):
            raise ValueError(
                f"prompt {row} has an image of several tiles, and nothing tells its images from frames of videos: pass "
                'clips, for each prompt (kind, number of placeholder runs) of every visual, such as [[("image", 1), '
                '("video", 8)]]'
            )
        return [(VIDEO, len(runs))] if runs else []
    for clip in clips:
        if clip[0] not in (IMAGE, VIDEO):
            raise ValueError(f'a clip must be ("image" or "video", count), got {clip}')
    if sum(count for _, count in clips) != len(runs):
        raise ValueError(f"prompt {row} has {len(runs)} runs of placeholders, but its clips are {list(clips)}")
    pieces = torch.tensor(runs).split([count for _, count in clips])
    return [(kind, int(piece.sum())) for (kind, _), piece in zip(clips, pieces, strict=True)]
