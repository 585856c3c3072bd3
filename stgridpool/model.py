"""VideoModel: the one interface of a model for evaluation, sessions and tools; for its prompts see `stgridpool.prompt`.

A model works in stages whose results can be shared: frames become pixels (`recipe`), pixels become features (`encode`,
once per video), features become the tokens that the language model reads (`compress`, once per video, or once per
question if the compressor looks at the question), and tokens and text become a prompt (`prompt`).

Letters: L positions of a prompt, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from stgridpool.compressor import Compressor, Step
from stgridpool.decoder.decoder import Decoder
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Evidence, Need
from stgridpool.finite import LogitsWatch
from stgridpool.prompt import ClipTimes, Prompt, Video, Visual
from stgridpool.timing import StageTimer

__all__ = [
    "ClipTimes",
    "Prompt",
    "Recipe",
    "Tensors",
    "Video",
    "VideoModel",
    "Visual",
    "compressing",
    "generate",
    "last_logits",
    "map_tensors",
]

Tensors = Tensor | Mapping[str, Tensor]
"""The pixels or the features of a video: one tensor, or several by name."""


def map_tensors(tensors: Tensors, function: Callable[[Tensor], Tensor]) -> Tensors:
    """Apply a function to the tensor, or to each of several."""
    if isinstance(tensors, Tensor):
        return function(tensors)
    return {name: function(one) for name, one in tensors.items()}


class Recipe(Protocol):
    """The conversion of frames into the pixels that a vision tower reads; whoever loads videos knows the rest of it."""

    @property
    def resizing(self) -> Any:
        """The part that a reading process can do, as plain data that can be pickled; None if there is none."""


class VideoModel(Protocol):
    """A Video LLM.

    Attributes:
        language_model: A causal language model of transformers that accepts embeddings.
        tokenizer: The tokenizer of the language model.
        stop_text: Text that closes an answer; None if end tokens alone do.
        penalises_prompt: Whether a checkpoint's repetition penalty counts the ids of the prompt.
        vision_batch_size: Number of images that go through the vision tower at a time; None for as many as fit.
    """

    language_model: Any
    tokenizer: Any
    stop_text: str | None
    vision_batch_size: int | None
    penalises_prompt: bool

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
        """Steps before the language model, including the checkpoint's own pooling."""

    @property
    def decoder(self) -> Decoder:
        """The layers of the language model."""

    @property
    def inside(self) -> DecoderSteps | None:
        """The steps inside the language model; None if there are none."""

    @property
    def shares_prefix(self) -> bool:
        """Whether the cache of the language model grows by appending, so that prompts can share a prefix."""

    def own_pooling(self) -> Compressor:
        """Return the pooling with which the checkpoint was trained."""

    def reference(self) -> Reference:
        """Return what retention is measured against: the tokens that its own pooling leaves."""

    def own_counts(self, video: Video) -> tuple[int, int]:
        """Count the visual tokens and the newline tokens of a video after the checkpoint's own pooling."""

    def encode(self, pixels: Any, needs: Collection[Need], timer: StageTimer) -> tuple[Any, Evidence]:
        """Run the vision tower on the `Tensors` that the recipe makes; return features and evidence about them."""

    def evidence(self, question: str, needs: Collection[Need]) -> Evidence:
        """Compute evidence about a question."""

    def compress(self, features: Any, evidence: Evidence, timer: StageTimer) -> Video:
        """Project and compress the features of a video, with the evidence that the compressor needs."""

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


@contextmanager
def compressing(model: VideoModel, prompt: Prompt) -> Iterator[None]:
    """Prepare the first forward in the block, which reads a whole prompt, for the model's steps inside it."""
    with ExitStack() as stack:
        stack.enter_context(prompt.handing_over())
        if model.inside is not None:
            stack.enter_context(model.inside.prompts([prompt.spans()], [prompt.num_answer]))
        yield


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
    inputs = {"attention_mask": torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device), **prompt.inputs}
    with compressing(model, prompt), watch.attached():
        output: Any = GenerationMixin.generate(model.language_model, inputs_embeds=embeds, **inputs, **options)
    ids: Tensor = output
    return ids


def last_logits(model: VideoModel, prompt: Prompt, count: int) -> Tensor:
    """Compute the logits (count, V) at the last positions of a whole prompt, without a shared prefix."""
    with compressing(model, prompt):
        output = model.language_model(
            inputs_embeds=prompt.embeds[None], use_cache=False, logits_to_keep=count, **prompt.inputs
        )
    logits: Tensor = output.logits
    return logits[0, -count:]  # some classes compute all of them
