"""VideoModel: all that evaluation, sessions and tools know of a model; Prompt: a question with its visuals in place.

A model is used in steps that can be shared: frames become pixels (`recipe`), pixels become features (`encode`, once per
video), features become the tokens that the language model reads (`compress`, once per video, or once per question if
the compressor looks at the question), and tokens and text become a prompt (`prompt`).

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
from stgridpool.evidence import Evidence, Need
from stgridpool.finite import LogitsWatch, StageCheck
from stgridpool.plan import Plan, Shape
from stgridpool.timing import StageTimer


@dataclass(frozen=True)
class ClipTimes:
    """When the frames of a video are shown.

    Attributes:
        times: One per frame, in seconds.
        duration: Length of the video, in seconds.
    """

    times: tuple[float, ...]
    duration: float


class Recipe(Protocol):
    """How frames become the pixels that a vision tower reads."""

    @property
    def resizing(self) -> Any:
        """The part that a reading process can do, as plain data that can be pickled."""

    def preprocess(self, images: Any, return_tensors: str | None = None) -> Any:
        """Return a mapping whose ``pixel_values`` are (T, 3, S, S) float32."""


class Visual(Protocol):
    """A video or an image as the language model reads it, in place of one placeholder."""

    @property
    def embeds(self) -> Tensor:
        """Visual tokens and newline tokens in order, (n, D)."""

    @property
    def num_newlines(self) -> int:
        """Newline tokens among them."""

    @property
    def num_tokens(self) -> int:
        """Visual tokens among them."""

    @property
    def checks(self) -> tuple[StageCheck, ...]:
        """Whether the output of each stage is finite; nobody has waited for them yet."""


class Video(Visual, Protocol):
    """A video as the language model reads it."""

    @property
    def plan(self) -> Plan:
        """Decision of the compressors in front of the language model: where every visual token came from."""

    @property
    def source_shape(self) -> Shape:
        """(T, H, W) of the patches before any compression."""

    @property
    def shape(self) -> Shape:
        """(T', H', W') of the lattice that the visual tokens stand on."""

    @property
    def cell(self) -> Tensor | None:
        """The cell of each visual token, (N,) int64; None if they fill the lattice."""

    def span(self, start: int) -> VisualSpan:
        """Return where its tokens stand in a prompt in which it begins at position `start`."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt, embedded piece by piece.

    Attributes:
        ids: (n,) token ids, one placeholder for each visual.
        pieces: Embeddings (n_i, D), in order: text, visual, text, ..., text; a text may be empty.
        videos: Its videos, and the position at which each begins.
        num_answer: Ids at the end that belong to an answer which the prompt holds, and to the end of its turn.
        num_closing: Ids among them that close the turn.
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
        """Return where its videos stand."""
        return [video.span(start) for start, video in self.videos]

    @property
    def shared_ids(self) -> Tensor | None:
        """The ids before the video, which decide the prefix that all questions about it share; None if there is none.

        A prompt shares a prefix if it shows one video and nothing else, and text follows it.
        """
        if len(self.videos) != 1 or len(self.pieces) != 3 or not len(self.pieces[2]):
            return None
        return self.ids[: len(self.pieces[0])]


class VideoModel(Protocol):
    """A Video LLM.

    Attributes:
        language_model: A causal language model of transformers, which takes embeddings.
        tokenizer: Its tokenizer.
        stop_text: Text that closes an answer.
        vision_batch_size: Images that go through the vision tower at a time; None for as many as fit.
    """

    language_model: Any
    tokenizer: Any
    stop_text: str
    vision_batch_size: int | None

    @property
    def longest(self) -> int | None:
        """Positions of the longest prompt; None if there is no limit."""

    @property
    def recipe(self) -> Recipe:
        """How frames become pixels."""

    @property
    def offers(self) -> Collection[type[Need]]:
        """Kinds of evidence that it can compute."""

    @property
    def compressor(self) -> Compressor:
        """The method that reduces the tokens of videos; None sets it to the checkpoint's own pooling."""

    @compressor.setter
    def compressor(self, value: Compressor | str | None) -> None: ...

    @property
    def front_steps(self) -> Sequence[Step]:
        """Steps in front of the language model, the checkpoint's own pooling among them."""

    @property
    def decoder(self) -> Decoder:
        """The layers of the language model."""

    @property
    def inside(self) -> DecoderSteps | None:
        """The steps at work inside the language model; None if there are none."""

    def own_pooling(self) -> Compressor:
        """Return the pooling that the checkpoint was trained with."""

    def own_counts(self, num_frames: int) -> tuple[int, int]:
        """Count the tokens, and the newline tokens, that its own pooling leaves of a video."""

    def encode(self, pixels: Tensor, needs: Collection[Need], timer: StageTimer) -> tuple[Tensor, Evidence]:
        """Run the vision tower on frames (T, 3, S, S): features (T, P, C), and evidence about them."""

    def evidence(self, question: str, needs: Collection[Need]) -> Evidence:
        """Compute evidence about a question."""

    def compress(self, features: Tensor, evidence: Evidence, timer: StageTimer) -> Video:
        """Project and compress the features (T, P, C) of a video, with what the compressor needs besides."""

    def encode_images(self, images: Sequence[Any], timer: StageTimer) -> Sequence[Visual]:
        """Encode PIL images that one prompt shows."""

    def prompt(
        self, context: str, visuals: Sequence[Visual], clips: Sequence[ClipTimes], answer: str | None = None
    ) -> Prompt:
        """Put a question and its visuals into the words of the model.

        Args:
            context: The question; it may hold a placeholder for each visual.
            visuals: What it shows, in order.
            clips: The times of its videos.
            answer: An answer to put behind it, or None to leave it open.
        """

    def identity(self) -> Mapping[str, Any] | None:
        """Say what features depend on, besides the frames; None if weights are offloaded and cannot be read.

        What evidence from parts that the checkpoint leaves out depends on, besides, is called "pool_head" and
        "text_tower"; None without them.
        """

    def facts(self) -> Mapping[str, Any]:
        """Say what a record should hold about the model: JSON values."""


def compressing(model: VideoModel, prompt: Prompt) -> AbstractContextManager[Any]:
    """Return a block in which the videos of a prompt are compressed inside the language model, if anything does."""
    if model.inside is None:
        return nullcontext()
    return model.inside.prompts([prompt.spans()], [prompt.num_answer])


def generate(model: VideoModel, prompt: Prompt, watch: LogitsWatch, **options: Any) -> Tensor:
    """Continue a prompt that shares nothing.

    Args:
        model: The model.
        prompt: The prompt.
        watch: Notes which answers come from logits that are not finite.
        **options: Of transformers' ``generate``.

    Returns:
        (1, m) ids of the new tokens.
    """
    from transformers import GenerationMixin  # noqa: PLC0415  # loads for seconds

    embeds = prompt.embeds[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    with compressing(model, prompt), watch.attached():
        output: Any = GenerationMixin.generate(
            model.language_model, inputs_embeds=embeds, attention_mask=mask, **options
        )
    return output


def last_logits(model: VideoModel, prompt: Prompt, count: int) -> Tensor:
    """Return the logits (count, V) at the last positions of a prompt that shares nothing."""
    with compressing(model, prompt):
        output = model.language_model(inputs_embeds=prompt.embeds[None], use_cache=False, logits_to_keep=count)
    return output.logits[0]
