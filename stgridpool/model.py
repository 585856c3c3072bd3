"""VideoModel: the one interface of a model for evaluation, sessions and tools; Prompt: a question with its visuals.

A model works in stages whose results can be shared: frames become pixels (`recipe`), pixels become features (`encode`,
once per video), features become the tokens that the language model reads (`compress`, once per video, or once per
question if the compressor looks at the question), and tokens and text become a prompt (`prompt`).

Letters: L positions of a prompt, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from stgridpool.compressor import Compressor, Step
from stgridpool.decoder.decoder import Decoder
from stgridpool.decoder.shortened_prompt import VisualSpan
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Evidence, Need
from stgridpool.finite import LogitsWatch, StageCheck
from stgridpool.plan import Plan, Shape
from stgridpool.timing import StageTimer


@dataclass(frozen=True)
class ClipTimes:
    """The times of the frames of a video.

    Attributes:
        times: Time of each frame, in seconds.
        duration: Length of the video, in seconds.
    """

    times: tuple[float, ...]
    duration: float


class Recipe(Protocol):
    """The conversion of frames into the pixels that a vision tower reads."""

    @property
    def resizing(self) -> Any:
        """The part that a reading process can do, as plain data that can be pickled."""

    def preprocess(self, images: Any, return_tensors: str | None = None) -> Any:
        """Convert `images` into a mapping whose ``pixel_values`` are (T, 3, S, S) float32."""


class Visual(Protocol):
    """A video or image in the form that the language model reads, in place of one placeholder."""

    @property
    def embeds(self) -> Tensor:
        """Visual and newline tokens in order, (n, D)."""

    @property
    def num_newlines(self) -> int:
        """Number of newline tokens among them."""

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens among them."""

    @property
    def checks(self) -> tuple[StageCheck, ...]:
        """Whether the output of each stage is finite, as tensors on the device."""


class Video(Visual, Protocol):
    """A video in the form that the language model reads."""

    @property
    def plan(self) -> Plan:
        """The combined plan of the steps in front of the language model: the sources of every visual token."""

    @property
    def source_shape(self) -> Shape:
        """(T, H, W) of the patches before any compression."""

    @property
    def shape(self) -> Shape:
        """(T', H', W') of the lattice of the visual tokens."""

    @property
    def cell(self) -> Tensor | None:
        """The cell of each visual token, (N,) int64; None if they fill the lattice."""

    def span(self, start: int) -> VisualSpan:
        """Return the positions of its tokens in a prompt where the video begins at position `start`."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt as ids and embeddings.

    Attributes:
        ids: (n,) token ids, with one placeholder for each visual.
        pieces: Embeddings (n_i, D), in order: text, visual, text, ..., text; a text may be empty.
        videos: The videos of the prompt, each with the position at which it begins.
        num_answer: Number of ids at the end that belong to an answer in the prompt, including the end of its turn.
        num_closing: Number of ids among these that close the turn.
    """

    ids: Tensor
    pieces: tuple[Tensor, ...]
    videos: tuple[tuple[int, Video], ...] = ()
    num_answer: int = 0
    num_closing: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def embeds(self) -> Tensor:
        """The whole prompt, (L, D)."""
        return torch.cat(self.pieces)

    def spans(self) -> list[VisualSpan]:
        """Return the positions of the videos."""
        return [video.span(start) for start, video in self.videos]

    @property
    def shared_ids(self) -> Tensor | None:
        """The ids in front of the video, which identify the prefix that questions about it share; None without one.

        A prompt has a prefix to share if it shows one video and nothing else, and text follows the video.
        """
        if len(self.videos) != 1 or len(self.pieces) != 3 or not len(self.pieces[2]):
            return None
        return self.ids[: len(self.pieces[0])]


class VideoModel(Protocol):
    """A Video LLM.

    Attributes:
        language_model: A causal language model of transformers that accepts embeddings.
        tokenizer: The tokenizer of the language model.
        stop_text: Text that closes an answer.
        vision_batch_size: Number of images that go through the vision tower at a time; None for as many as fit.
    """

    language_model: Any
    tokenizer: Any
    stop_text: str
    vision_batch_size: int | None

    @property
    def longest(self) -> int | None:
        """Number of positions of the longest prompt; None if there is no limit."""

    @property
    def recipe(self) -> Recipe:
        """The conversion of frames into pixels."""

    @property
    def offers(self) -> Collection[type[Need]]:
        """Kinds of evidence that the model can compute."""

    @property
    def compressor(self) -> Compressor:
        """The method that compresses videos; set it to None for the checkpoint's own pooling."""

    @compressor.setter
    def compressor(self, value: Compressor | str | None) -> None: ...

    @property
    def front_steps(self) -> Sequence[Step]:
        """Steps in front of the language model, including the checkpoint's own pooling."""

    @property
    def decoder(self) -> Decoder:
        """The layers of the language model."""

    @property
    def inside(self) -> DecoderSteps | None:
        """The steps inside the language model; None if there are none."""

    def own_pooling(self) -> Compressor:
        """Return the pooling with which the checkpoint was trained."""

    def reference(self) -> Reference:
        """Return what retention is measured against: the tokens that its own pooling leaves."""

    def own_counts(self, num_frames: int) -> tuple[int, int]:
        """Count the visual tokens and the newline tokens of a video after the checkpoint's own pooling."""

    def encode(self, pixels: Tensor, needs: Collection[Need], timer: StageTimer) -> tuple[Tensor, Evidence]:
        """Run the vision tower on frames (T, 3, S, S), and return features (T, P, C) and evidence about them."""

    def evidence(self, question: str, needs: Collection[Need]) -> Evidence:
        """Compute evidence about a question."""

    def compress(self, features: Tensor, evidence: Evidence, timer: StageTimer) -> Video:
        """Project and compress the features (T, P, C) of a video, with the evidence that the compressor needs."""

    def encode_images(self, images: Sequence[Any], timer: StageTimer) -> Sequence[Visual]:
        """Encode the PIL images of one prompt."""

    def prompt(
        self, context: str, visuals: Sequence[Visual], clips: Sequence[ClipTimes], answer: str | None = None
    ) -> Prompt:
        """Build a prompt from a question and its visuals, by the conversation template of the model.

        Args:
            context: The question; it may contain a placeholder for each visual.
            visuals: The videos and images of the question, in order.
            clips: The times of its videos.
            answer: An answer to append, or None for a prompt that ends with the question.
        """

    def identity(self) -> Mapping[str, Any] | None:
        """Return all that features depend on besides the frames; None if weights are offloaded and cannot be read.

        The entries "pool_head" and "text_tower" are what evidence from these parts, which checkpoints do not contain,
        depends on in addition; None without them.
        """

    def facts(self) -> Mapping[str, Any]:
        """Return facts about the model for the record of a run, as JSON values."""


def compressing(model: VideoModel, prompt: Prompt) -> AbstractContextManager[Any]:
    """Compress the videos of a prompt inside the language model while the block runs, if the model has steps there."""
    if model.inside is None:
        return nullcontext()
    return model.inside.prompts([prompt.spans()], [prompt.num_answer])


def generate(model: VideoModel, prompt: Prompt, watch: LogitsWatch, **options: Any) -> Tensor:
    """Generate an answer to a whole prompt, without a shared prefix.

    Args:
        model: The model.
        prompt: The prompt.
        watch: Watch that records which answers come from logits that are not finite.
        **options: Options of transformers' ``generate``.

    Returns:
        (1, m) ids of the new tokens.
    """
    from transformers import GenerationMixin  # noqa: PLC0415  # takes seconds to load

    embeds = prompt.embeds[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    with compressing(model, prompt), watch.attached():
        output: Any = GenerationMixin.generate(
            model.language_model, inputs_embeds=embeds, attention_mask=mask, **options
        )
    ids: Tensor = output
    return ids


def last_logits(model: VideoModel, prompt: Prompt, count: int) -> Tensor:
    """Compute the logits (count, V) at the last positions of a whole prompt, without a shared prefix."""
    with compressing(model, prompt):
        output = model.language_model(inputs_embeds=prompt.embeds[None], use_cache=False, logits_to_keep=count)
    logits: Tensor = output.logits
    return logits[0]
