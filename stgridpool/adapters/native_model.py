"""NativeVideoModel: a native model of transformers as a `stgridpool.model.VideoModel`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from stgridpool.adapters.adapter import VIDEO
from stgridpool.adapters.families import adapter_for
from stgridpool.adapters.method import Method
from stgridpool.adapters.names import POLICIES
from stgridpool.adapters.native_prompt import messages_of, native_prompt
from stgridpool.adapters.native_recipe import FRAMES, NativeRecipe
from stgridpool.adapters.native_video import NativeVideo, as_tensors, from_tensors, is_record
from stgridpool.adapters.places import IN_DECODER
from stgridpool.adapters.repeated_frames import count_reused
from stgridpool.adapters.tower_evidence import tower_offers, with_evidence
from stgridpool.adapters.visual_runs import VisualRun, compress_run
from stgridpool.compressor import PATCHES, Compressor, Step
from stgridpool.compressors.none import NoCompression
from stgridpool.decoder.decoder import Decoder, TransformersDecoder
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.distinct_frames import REUSED
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Evidence, Need, Question, check_offered
from stgridpool.finite import StageCheck
from stgridpool.model import ClipTimes, Prompt, Video, Visual
from stgridpool.options import choice
from stgridpool.timing import StageTimer
from stgridpool.weights_digest import weights_digest


class NativeVideoModel:
    """A native model with its processor; for attributes and methods see `stgridpool.model.VideoModel`.

    A video is encoded once, compressed once, or once per question if the compressor looks at it, and written into any
    number of prompts. Positions, DeepStack levels and marks of tokens go into them explicitly.

    Args:
        model: A model of a supported family, see `stgridpool.adapters.families`.
        recipe: Its processor and the rule by which frames are chosen.
        system_prompt: A system prompt before every question; None leaves it to the chat template.
        positions: The positions of tokens, see `stgridpool.adapters.compress_inputs`.
        reuse_frames: Whether frames that equal an earlier one of their video are encoded once.

    Attributes:
        vision_batch_size: None: the vision part of a native model encodes a video as a whole.
        penalises_prompt: True, as for models that get ids.
        stop_text: None: answers end with the end tokens of the checkpoint.

    Raises:
        ValueError: If the model is not supported.
    """

    def __init__(
        self,
        model: Any,
        recipe: NativeRecipe,
        system_prompt: str | None = None,
        positions: str = "reference",
        reuse_frames: bool = True,
    ) -> None:
        choice("positions", positions, POLICIES)
        self._adapter = adapter_for(model)
        self.language_model, self.recipe, self.tokenizer = model, recipe, recipe.processor.tokenizer
        self.vision_batch_size: int | None = None
        self.stop_text: str | None = None
        self.penalises_prompt = True
        self._system_prompt, self._positions, self._reuse_frames = system_prompt, positions, reuse_frames
        self._method = Method(None)
        self._inside: DecoderSteps | None = None

    @property
    def longest(self) -> int | None:
        """None: prompts are never cut, since many models are used beyond the length in their configuration."""
        return None

    @property
    def compressor(self) -> Compressor:
        """The method; "none" leaves the tokens of the model's own pooling."""
        return NoCompression() if self._method.compressor is None else self._method.compressor

    @compressor.setter
    def compressor(self, value: Compressor | str | None) -> None:
        method = Method.of_model(self._adapter, self.language_model, value)
        self._inside = method.inside(self._adapter, self.language_model, ())
        self._method = method

    @property
    def offers(self) -> Collection[type[Need]]:
        """Kinds of evidence that a compressor may need."""
        return {*tower_offers(self._adapter, self.language_model), Question, *IN_DECODER}

    @property
    def front_steps(self) -> Sequence[Step]:
        """Steps before the language model, including the checkpoint's own pooling."""
        front = self._front()
        if any(step.place == PATCHES for step in front):
            return front
        return (Step(self.own_pooling(), PATCHES), *front)

    @property
    def decoder(self) -> Decoder:
        """The layers of the language model."""
        first = self._adapter.first_layer(self.language_model)
        return TransformersDecoder(self.language_model.get_decoder(), first)

    @property
    def inside(self) -> DecoderSteps | None:
        """Steps inside the language model."""
        return self._inside

    @property
    def shares_prefix(self) -> bool:
        """Whether every layer keeps all positions; layers of linear attention change their state in place."""
        layers = DynamicCache(config=self.language_model.config).layers
        return all(type(layer) is DynamicLayer for layer in layers)

    def own_pooling(self) -> Compressor:
        """Return the pooling that turns a video's patches into tokens."""
        return self._adapter.own_pooling(self.language_model)

    def reference(self) -> Reference:
        """Refuse: frames of another size have other counts, so that there is no reference without a video.

        Raises:
            ValueError: Always; `stgridpool.compress(model, name, retention=...)` measures against each video.
        """
        raise ValueError(
            "the tokens of a native model depend on the size of the video: give the compressor its own budget"
        )

    def reference_for(self, features: Mapping[str, Tensor]) -> Reference:
        """Return what retention of a video is measured against.

        Args:
            features: The encoded video, as `encode` returns it.
        """
        visual = from_tensors(features)
        rows, columns = (visual.tokens if visual.patches is None else visual.patches).shape[1:3]
        layers = len(self.language_model.get_decoder().layers)
        return Reference(self._adapter.own_pooling(self.language_model), (rows, columns), layers)

    def own_counts(self, video: Video) -> tuple[int, int]:
        """Count the tokens that the unmodified model would read, and the rows after them.

        Raises:
            TypeError: If `video` is that of another kind of model.
        """
        if not isinstance(video, NativeVideo):
            raise TypeError(f"a video of a native model must be a NativeVideo, got {type(video).__name__}")
        return video.own_counts

    def encode(
        self, pixels: Mapping[str, Tensor], needs: Collection[Need], timer: StageTimer
    ) -> tuple[dict[str, Tensor], Evidence]:
        """Run the vision part on the inputs that the recipe has made.

        Returns:
            The tokens, with the number of frames that were not encoded again as `REUSED`; and evidence about them.
        """
        inputs = {name: value for name, value in pixels.items() if not is_record(name)}
        check_offered(needs, tower_offers(self._adapter, self.language_model), "the evaluation")
        with timer.stage("vision"):
            clips = [[(VIDEO, len(pixels[FRAMES]))]]
            (visual,) = with_evidence(
                self._adapter, self.language_model, inputs, VIDEO, needs, clips, self._reuse_frames
            )
        record = {name: value for name, value in pixels.items() if is_record(name)}
        per_token = self._adapter.frames_per_token(self.language_model)
        record[REUSED] = torch.tensor(count_reused(visual.reused, per_token, len(pixels[FRAMES])))
        return as_tensors(visual) | record, visual.evidence

    def evidence(self, question: str, needs: Collection[Need]) -> Evidence:
        """Embed a question, without a template around it; see `Question`."""
        check_offered(needs, (Question,), "a question")
        ids = torch.as_tensor(self.tokenizer(question, add_special_tokens=False).input_ids)
        embeddings = self.language_model.get_input_embeddings()
        embeds: Tensor = embeddings(ids.to(embeddings.weight.device))
        return dict.fromkeys(needs, embeds)

    def compress(self, features: Mapping[str, Tensor], evidence: Evidence, timer: StageTimer) -> NativeVideo:
        """Compress the tokens of a video."""
        visual = from_tensors(features)
        count = visual.tokens.shape[:3].numel()
        slots = torch.arange(count, device=visual.tokens.device)
        if visual.kept is not None:
            slots = torch.full_like(slots, -1).index_copy(0, visual.kept.to(slots.device), slots[: len(visual.kept)])
        run = VisualRun(visual, 0, slots, slots[:0], self._adapter.newline_position(self.language_model))
        tail = self._adapter.tail(self.language_model)
        with timer.stage("compress"):
            compressed = compress_run(self._adapter, self.language_model, run, self._front(), evidence)
        stages = {"vision part": visual.tokens, **{repr(need): value for need, value in evidence.items()}}
        stages["compressor"] = compressed.tokens.features
        checks = tuple(StageCheck.of(stage, value) for stage, value in stages.items())
        record = {name: value for name, value in features.items() if is_record(name)}
        tail = visual.tokens.new_empty(0, visual.tokens.shape[-1]) if tail is None else tail
        return NativeVideo(compressed.without_sources(), record, tail, checks)

    def encode_images(self, images: Sequence[Any], timer: StageTimer) -> Sequence[Visual]:
        """Refuse images.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"native models answer questions about videos here, not about {len(images)} images")

    def prompt(
        self, context: str, visuals: Sequence[Visual], clips: Sequence[ClipTimes], answer: str | None = None
    ) -> Prompt:
        """Build a prompt from a question and its videos, by the chat template; time stamps are the processor's.

        Raises:
            TypeError: If a visual is not a video of a native model.
            ValueError: See `native_prompt`.
        """
        videos = [visual for visual in visuals if isinstance(visual, NativeVideo)]
        if len(videos) != len(visuals) or len(clips) != len(videos):
            raise TypeError(f"a prompt of a native model shows videos only, got {len(visuals)} visuals")
        messages = messages_of(context, len(videos), self._system_prompt)
        return native_prompt(self._adapter, self.language_model, self.recipe, messages, videos, answer, self._positions)

    def identity(self) -> Mapping[str, Any] | None:
        """Return all that features depend on besides the frames; None if weights are offloaded."""
        weights = {name: weights_digest(module) for name, module in _vision_parts(self.language_model)}
        if None in weights.values():
            return None
        video_processor = self.recipe.processor.video_processor
        return {
            "processor": [type(video_processor).__name__, video_processor.to_dict()],
            "attention": getattr(self.language_model.config, "_attn_implementation", None),
            "model": type(self.language_model).__name__,
            "config": self.language_model.config.to_dict(),
            "weights": weights,
            "dtype": str(self.language_model.dtype),
            "pool_head": None,
            "text_tower": None,
        }

    def facts(self) -> Mapping[str, Any]:
        """Return facts about the model for the record of a run."""
        config = self.language_model.config
        return {
            "revision": getattr(config, "_commit_hash", None),
            "family": config.model_type,
            "attn_implementation": getattr(config, "_attn_implementation", None),
            "system_prompt": self._system_prompt,
            "positions": self._positions,
        }

    def _front(self) -> tuple[Step, ...]:
        steps = self._method.steps(self._adapter, self.language_model)
        return tuple(step for step in steps if not step.is_inside)


def _vision_parts(model: Any) -> list[tuple[str, Any]]:
    """Return the parts of a model besides its decoder, by name."""
    decoder = model.get_decoder()
    return [(name, part) for name, part in model.base_model.named_children() if part is not decoder]
