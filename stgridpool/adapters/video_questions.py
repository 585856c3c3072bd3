"""VideoQuestions: many questions about one video, answered by a native model that reads the video once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.video_utils import VideoMetadata

from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.frame_rules import OwnRule, Source
from stgridpool.adapters.native_model import NativeVideoModel
from stgridpool.adapters.native_recipe import NativeRecipe
from stgridpool.compressor import Compressor
from stgridpool.decoder.session import POSITIONS
from stgridpool.distinct_frames import REUSED
from stgridpool.model import ClipTimes, Prompt
from stgridpool.session import VideoSession, open_session
from stgridpool.timing import StageTimer


class VideoQuestions:
    """A video that is encoded, compressed and prefilled once, for any number of questions; the model is not changed.

    Args:
        model: A native model of transformers of a supported family.
        processor: Its processor.
        frames: (T, h, w, 3) uint8.
        metadata: What transformers' `load_video` returns beside the frames: the video's length and rate, and the index
            of each frame.
        compressor: The method, with its own budget, or its name. It must not look at the question.
        positions: The positions of tokens, see `stgridpool.adapters.compress_inputs`.
        reuse_frames: Whether frames that equal an earlier one are encoded once.

    Attributes:
        reused_frames: Number of frames that equal an earlier one and were not encoded again.
        session: The keys and values that all questions share; None before the first one.

    Raises:
        ValueError: If the model is not supported, the checkpoint has no chat template, or the method looks at the
            question.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        frames: NDArray[np.uint8],
        metadata: VideoMetadata,
        compressor: Compressor | str = "none",
        positions: str = "reference",
        reuse_frames: bool = True,
    ) -> None:
        rule, lists = OwnRule(processor.video_processor, {}), adapter_for(model).lists_per_prompt
        recipe = NativeRecipe(processor, rule, model.dtype, lists)
        self._model = NativeVideoModel(model, recipe, positions=positions, reuse_frames=reuse_frames)
        self._model.compressor = compressor
        if self._model.compressor.query_aware:
            raise ValueError(f"{self._model.compressor!r} looks at the question: use stgridpool.compress for each one")
        self.session: VideoSession | None = None
        named = metadata.frames_indices
        rate, indices = float(metadata.fps or 0), [] if named is None else [int(index) for index in named]
        if rate <= 0 or len(indices) != len(frames):
            raise ValueError(f"metadata must name the frame rate and an index for each of {len(frames)} frames")
        source = Source(int(metadata.total_num_frames), rate)
        self._clip = ClipTimes(tuple(index / rate for index in indices), source.num_frames / rate)
        timer, device = StageTimer(model.device), model.device
        with torch.inference_mode():
            inputs = {name: value.to(device) for name, value in recipe.inputs(frames, indices, source).items()}
            features, evidence = self._model.encode(inputs, self._model.compressor.needs, timer)
            self.reused_frames = int(features[REUSED])
            self._video = self._model.compress(features, evidence, timer)

    def generate(self, questions: Sequence[str], **options: Any) -> list[str]:
        """Answer questions as one batch; each is a turn of the user, after the video.

        Args:
            questions: At least one.
            **options: Options of transformers' ``generate``, such as ``max_new_tokens``, for one answer each.

        Raises:
            ValueError: If the chat template puts a question before the video.
        """
        with torch.inference_mode():
            prompts = [self._model.prompt(question, [self._video], [self._clip]) for question in questions]
            session = self.session = self.session or open_session(self._model, prompts[0])
        for prompt in prompts:
            _check_prefix(session, prompt)
        suffixes = [prompt.embeds[len(session) :] for prompt in prompts]
        positions = [prompt.inputs[POSITIONS] for prompt in prompts]
        ids = session.generate(suffixes, positions, **options)
        answers: list[str] = self._model.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return answers


def _check_prefix(session: VideoSession, prompt: Prompt) -> None:
    if prompt.shared_ids is None or not torch.equal(prompt.embeds[: len(session)], session.prefix):
        raise ValueError("the chat template puts a question before its video, so that questions share no prefix")
