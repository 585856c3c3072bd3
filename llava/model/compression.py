"""Compression of a model's videos: before the language model, inside it, or both."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from llava.encoded_video import EncodedVideo
from llava.model.own_pooling import pooling_compressor
from llava.model.splice import deal_visuals, visual_starts
from llava.model.tower_steps import check_steps
from stgridpool import Compressor, Evidence, Plan, Shape, Step, VideoTokens, build_compressor
from stgridpool.compressor import PATCHES, EncoderLayer, compress_steps, early_steps
from stgridpool.decoder.decoder import TransformersDecoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.evidence import Need, QueryAttention, Question, RotaryBias, check_offered
from stgridpool.frame_evidence import MADE_BY_STEPS
from stgridpool.listed_frames import ListedFrames
from stgridpool.provenance import plan_of_frames

Visual = EncodedVideo | torch.Tensor


class Compression:
    """The compressors of a model; mixed into `VisualInputs`.

    Attributes:
        decoder_steps: The steps inside the language model, or None.
    """

    config: Any
    get_vision_tower: Any
    decoder_steps: DecoderSteps | None = None
    _compressor: Compressor | None = None

    @property
    def compressor(self) -> Compressor:
        """The method that compresses videos; by default the checkpoint's own pooling.

        Set it to a `Compressor`, a name, or None for the checkpoint's own pooling. A method inside the language model
        follows the checkpoint's own pooling, or another method: ``"st_gridpool+sttm"``.
        """
        return self._compressor or self.own_pooling

    @compressor.setter
    def compressor(self, value: Compressor | str | None) -> None:
        compressor = build_compressor(value) if isinstance(value, str) else value
        if compressor is not None and not isinstance(compressor, Compressor):
            raise TypeError(f"compressor must be a Compressor, a name or None, got {type(value).__name__}")
        if compressor is not None:
            compressor = compressor.for_depth(self.config.num_hidden_layers)
            check_steps(self.get_vision_tower(), early_steps(compressor))
            check_offered(compressor.needs, self.offers, compressor)
            self.get_vision_tower().check_needs(compressor.needs)
        steps = () if compressor is None else compressor.steps()
        inside = [step for step in steps if step.is_inside]
        self.decoder_steps = DecoderSteps(TransformersDecoder(self), inside) if inside else None
        self._compressor = compressor

    @property
    def offers(self) -> frozenset[type[Need]]:
        """Kinds of evidence that a compressor may need."""
        offered: frozenset[type[Need]] = self.get_vision_tower().evidence_offered()
        return offered | {Question, QueryAttention, RotaryBias, ListedFrames} | MADE_BY_STEPS

    @property
    def front_steps(self) -> tuple[Step, ...]:
        """Steps before the language model, including the checkpoint's own pooling: first those on frames."""
        steps = () if self._compressor is None else self._compressor.steps()
        front = tuple(step for step in steps if not step.is_inside)
        if any(step.place == PATCHES for step in front):
            return front
        early = tuple(step for step in front if step.is_before_features)
        return (*early, Step(self.own_pooling, PATCHES), *front[len(early) :])

    @property
    def tower_steps(self) -> tuple[Step, ...]:
        """Steps inside the vision tower."""
        return tuple(step for step in self.front_steps if isinstance(step.place, EncoderLayer))

    def compress_patches(self, patches: VideoTokens, evidence: Evidence) -> tuple[VideoTokens, Plan, Shape, Evidence]:
        """Compress the projected patches of a video before the language model.

        Args:
            patches: Of the frames or pictures that went through the vision tower; they fill their lattice.
            evidence: About them, and `FramesRead` if a step acts on frames.

        Returns:
            The tokens; the combined plan, whose sources are the patches of the frames that were read; the lattice of
            these; and the evidence about the tokens.
        """
        steps = self.front_steps
        early = [step for step in steps if step.is_before_features]
        tokens, plan, about = compress_steps(steps[len(early) :], patches, evidence)
        if early:
            read, source = plan_of_frames(early, evidence, patches)
            return tokens, source.then(plan), read, about
        return tokens, plan, patches.shape, about

    @property
    def own_pooling(self) -> Compressor:
        """The pooling of videos with which the checkpoint was trained."""
        return pooling_compressor(self.config.mm_spatial_pool_mode)

    def compressing(self, ids: Sequence[torch.Tensor], visuals: Sequence[Visual]) -> AbstractContextManager[Any]:
        """Compress the videos of these prompts inside the language model while the block runs.

        The block does nothing if no step acts inside the language model.

        Args:
            ids: (n_i,) ids of each prompt, without padding, with a placeholder for each visual.
            visuals: The images and videos of all prompts, in order.
        """
        if self.decoder_steps is None:
            return nullcontext()
        starts = [visual_starts(row) for row in ids]
        dealt = deal_visuals([len(row) for row in starts], visuals)
        return self.decoder_steps.prompts([video_spans(row, shown) for row, shown in zip(starts, dealt, strict=True)])


def video_spans(starts: Sequence[int], visuals: Sequence[Visual]) -> list[VisualSpan]:
    """Compute the positions of a prompt's videos after all visuals have replaced their placeholders.

    Args:
        starts: Position of each visual's placeholder among the ids of the prompt.
        visuals: The visuals, in order.
    """
    spans, shift = [], 0
    for start, visual in zip(starts, visuals, strict=True):
        if isinstance(visual, EncodedVideo):
            spans.append(visual.span(start + shift))
            shift += len(visual.embeds) - 1
        else:
            shift += len(visual) - 1
    return spans
