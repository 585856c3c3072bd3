"""VisualEncoding: from pixels to compressed features, the first half of `VisualInputs`.

The vision tower, the projector and the compressor are separate steps, each usable on its own: features that were
computed before are only projected and compressed.
"""

import logging
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from llava.encoded_video import EncodedVideo
from llava.model.anyres import check_merge_type
from llava.model.compression import Compression
from llava.model.newline_rule import newline_position
from llava.model.tower import VisionTower
from llava.model.tower_steps import through_tower
from llava.model.vision_batches import fitting_batch_size, map_batches
from stgridpool import Evidence, Need, Plan, Shape, Step, VideoTokens
from stgridpool.finite import StageCheck, all_finite
from stgridpool.frame_evidence import FramesRead
from stgridpool.frame_transform import transformed
from stgridpool.newlines import count_newlines
from stgridpool.timing import StageTimer

logger = logging.getLogger(__name__)


class VisualEncoding(Compression):
    """Mixin through which a language model turns images and videos into visual tokens.

    Attributes:
        vision_batch_size: Number of images that go through the vision tower at a time; it changes memory and speed, not
            results. None for as many as fit. If memory still runs out, the number is halved permanently, with a
            warning.
    """

    model: Any
    get_input_embeddings: Any
    vision_batch_size: int | None = None

    def get_vision_tower(self) -> VisionTower:
        """Return the vision tower."""
        tower: VisionTower = self.model.vision_tower
        return tower

    def encode_images(self, images: torch.Tensor, timer: StageTimer | None = None) -> torch.Tensor:
        """Compute projected features (B, n*n, D) of images (B, 3, S, S), before any pooling.

        Args:
            images: Pixel values of any floating dtype.
            timer: Sums the time of the stages `vision` and `projector`.

        Raises:
            ValueError: If `images` is not a non-empty (B, 3, S, S).
        """
        features, _ = self.vision_features(images, timer)
        return self.project(features, timer)

    def vision_features(
        self,
        images: torch.Tensor,
        timer: StageTimer | None = None,
        needs: Collection[Need] = (),
        steps: Sequence[Step] = (),
    ) -> tuple[torch.Tensor, Evidence]:
        """Run the vision tower: the first half of `encode_images`.

        Args:
            images: Pixel values (B, 3, S, S) of any floating dtype.
            timer: Sums the time of the stage `vision`.
            needs: Evidence to compute in the same pass; see `VisionTower.with_evidence`.
            steps: Steps inside the tower, if the images are the frames of a video; see `through_tower`.

        Returns:
            Features (B, n*n, C), or of the frames that steps leave, and the evidence about them.

        Raises:
            ValueError: If `images` is not a non-empty (B, 3, S, S), or the tower cannot compute the evidence.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise ValueError(f"pixel values must be (images, 3, height, width), got {tuple(images.shape)}")
        tower, asked = self.get_vision_tower(), tuple(dict.fromkeys(needs))
        if steps:
            return through_tower(tower, images, steps, asked, partial(self._in_batches, timer=timer, stage="vision"))

        def encode(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features, evidence = tower.with_evidence(batch, asked)
            return features, *(evidence[need] for need in asked)

        features, *found = self._in_batches(encode, images, timer, "vision")
        return features, dict(zip(asked, found, strict=True))

    def project(self, features: torch.Tensor, timer: StageTimer | None = None) -> torch.Tensor:
        """Project features (B, n*n, C) of the vision tower to the width of the language model: (B, m*m, D)."""
        dtype = self.get_input_embeddings().weight.dtype
        (projected,) = self._in_batches(
            lambda batch: (self.model.mm_projector(self.for_projector(batch.to(dtype))),), features, timer, "projector"
        )
        return projected

    def for_projector(self, features: torch.Tensor) -> torch.Tensor:
        """Convert features (B, n*n, C) of the vision tower to the input of the projector."""
        return features

    @property
    def projected_side(self) -> int:
        """Side m of the map that the projector outputs, in tokens."""
        return self.get_vision_tower().num_patches_per_side

    def encode_video(self, pixel_values: torch.Tensor, timer: StageTimer | None = None) -> EncodedVideo:
        """Encode and compress a video, and insert newline tokens.

        Args:
            pixel_values: (T, 3, S, S), the frames.
            timer: Sums the time of the stages `vision`, `projector` and `compress`.

        Raises:
            ValueError: If the features include more than the patches, or a setting of the checkpoint is not supported.
        """
        needs = [need for need in self.compressor.needs if need.from_tower]
        pictures = transformed(self.front_steps, pixel_values)
        features, evidence = self.vision_features(pictures, timer, needs, self.tower_steps)
        return self.encode_features(features, timer, {**evidence, FramesRead(): torch.tensor([len(pixel_values)])})

    def encode_features(
        self, features: torch.Tensor, timer: StageTimer | None = None, evidence: Evidence | None = None
    ) -> EncodedVideo:
        """Project and compress the features (T, n*n, C) of a video: the second half of `encode_video`.

        Args:
            features: The features that `vision_features` returned, or a copy of them.
            timer: Sums the time of the stages `projector` and `compress`.
            evidence: The evidence about the patches that the compressors need, and `FramesRead` if one changes frames.

        Raises:
            ValueError: If the features include more than the patches, or a setting of the checkpoint is not supported.
        """
        projected = self.project(features, timer)
        given = self.evidence_on_map(evidence or {}, len(projected))
        with _stage(timer, "compress"):
            patches = VideoTokens.of(self._as_maps(projected))
            tokens, plan, shape, evidence = self.compress_patches(patches, given)
            video = self.lay_out(tokens, plan, shape)
        computed = {repr(need): value for need, value in given.items() if value.is_floating_point()}
        stages = {"vision tower": features, **computed}
        stages |= {"projector": projected, "compressor": video.embeds}
        checks = tuple(StageCheck(stage, features.dtype, all_finite(value)) for stage, value in stages.items())
        return replace(video, checks=checks, evidence=evidence)

    def own_counts(self, num_frames: int) -> tuple[int, int]:
        """Count the visual tokens and the newline tokens of `num_frames` frames after the checkpoint's own pooling.

        Raises:
            ValueError: If the output of that pooling does not fill a lattice.
        """
        shape = self.own_pooling.planned_shape((num_frames, self.projected_side, self.projected_side))
        if shape is None:
            raise ValueError("the output of the checkpoint's own pooling must fill a lattice")
        return math.prod(shape), count_newlines(shape, self.newline_position())

    def evidence_on_map(self, evidence: Evidence, num_frames: int) -> Evidence:
        """Carry evidence about patches to the tokens of the map that the projector outputs for `num_frames` frames."""
        del num_frames
        return evidence

    def lay_out(self, tokens: VideoTokens, plan: Plan, source_shape: Shape) -> EncodedVideo:
        """Insert newline tokens between the tokens of a video; for the arguments see `EncodedVideo`."""
        return EncodedVideo.of(tokens, plan, source_shape, self.model.image_newline, self.newline_position())

    def _in_batches(
        self,
        encode: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
        inputs: torch.Tensor,
        timer: StageTimer | None,
        stage: str,
    ) -> tuple[torch.Tensor, ...]:
        """Apply `encode` to all rows of `inputs`, one batch at a time, and count the time towards `stage`."""
        size = self.vision_batch_size or fitting_batch_size(self.get_vision_tower())
        with _stage(timer, stage):
            outputs, fitting = map_batches(encode, inputs, size)
        if fitting < size:
            logger.warning("out of memory in %s with %d images at a time: from now on %d", stage, size, fitting)
            self.vision_batch_size = fitting
        return outputs

    def _as_maps(self, features: torch.Tensor) -> torch.Tensor:
        """Reshape projected features (T, m*m, D) to maps (T, m, m, D)."""
        side = self.projected_side
        if features.shape[1] != side * side:
            raise ValueError(
                f"pooling needs one feature for each of {side} x {side} patches, got {features.shape[1]}; "
                "mm_vision_select_feature must leave out the class token"
            )
        maps: torch.Tensor = features.unflatten(1, (side, side))
        return maps

    def newline_position(self) -> str:
        """Return where videos get newline tokens; the merge type may switch them off."""
        merge_type, position = self.config.mm_patch_merge_type, self.config.mm_newline_position
        check_merge_type(merge_type)
        return newline_position(merge_type, str(position))


def _stage(timer: StageTimer | None, name: str) -> AbstractContextManager[None]:
    return nullcontext() if timer is None else timer.stage(name)
