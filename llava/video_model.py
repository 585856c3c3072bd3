"""LlavaVideoModel: LLaVA as a `stgridpool.model.VideoModel`, the interface for evaluation and tools."""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from llava.constants import IMAGE_TOKEN_INDEX
from llava.encoded_image import EncodedImage
from llava.encoded_video import EncodedVideo
from llava.image_processing import VisionImageProcessor
from llava.mm_utils import process_images
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.prompts import PromptBuilder
from stgridpool import Compressor, Evidence, Need, Step
from stgridpool.decoder.decoder import Decoder, TransformersDecoder
from stgridpool.decoder.steps import DecoderSteps
from stgridpool.equal_budget import Reference
from stgridpool.evidence import Question, check_offered
from stgridpool.finite import StageCheck
from stgridpool.model import ClipTimes, Prompt, Video, Visual
from stgridpool.timing import StageTimer
from stgridpool.weights_digest import weights_digest


class LlavaVideoModel:
    """A LLaVA-Video or LLaVA-OneVision checkpoint; for attributes and methods see `stgridpool.model.VideoModel`.

    Args:
        model: The model of ``llava``.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        conv_template: Name of the conversation template.
        add_time_instruction: Whether prompts state the length of each video and the times of its frames.
        prompts: The builder of prompts, in place of one for `conv_template`.
    """

    def __init__(
        self,
        model: LlavaQwenForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: VisionImageProcessor,
        conv_template: str = "qwen_1_5",
        add_time_instruction: bool = False,
        prompts: PromptBuilder | None = None,
    ) -> None:
        self.language_model, self.tokenizer, self.recipe = model, tokenizer, image_processor
        self._prompts = prompts or PromptBuilder(
            conv_template, tokenizer, bool(model.config.mm_use_im_start_end), add_time_instruction
        )
        self.penalises_prompt = False  # as in LLaVA-NeXT, where the model gets embeddings alone
        self.stop_text: str | None = self._prompts.stop_text

    @property
    def longest(self) -> int | None:
        """Number of positions of the longest prompt; None if there is no limit."""
        longest: int | None = self.language_model.config.tokenizer_model_max_length
        return longest

    @property
    def compressor(self) -> Compressor:
        """See `llava.model.compression.Compression`."""
        return self.language_model.compressor

    @compressor.setter
    def compressor(self, value: Compressor | str | None) -> None:
        self.language_model.compressor = value

    @property
    def vision_batch_size(self) -> int | None:
        """See `llava.model.visual_inputs.VisualInputs`."""
        return self.language_model.vision_batch_size

    @vision_batch_size.setter
    def vision_batch_size(self, value: int | None) -> None:
        self.language_model.vision_batch_size = value

    @property
    def offers(self) -> Collection[type[Need]]:
        """Kinds of evidence that a compressor may need."""
        return self.language_model.offers

    @property
    def front_steps(self) -> Sequence[Step]:
        """Steps before the language model."""
        return self.language_model.front_steps

    @property
    def decoder(self) -> Decoder:
        """The layers of the language model."""
        return TransformersDecoder(self.language_model)

    @property
    def inside(self) -> DecoderSteps | None:
        """Steps inside the language model."""
        return self.language_model.decoder_steps

    def own_pooling(self) -> Compressor:
        """Return the pooling with which the checkpoint was trained."""
        return self.language_model.own_pooling

    def reference(self) -> Reference:
        """Return what retention is measured against: the tokens that its own pooling leaves."""
        side = self.language_model.projected_side
        return Reference(self.own_pooling(), (side, side), len(self.decoder.layers))

    @property
    def shares_prefix(self) -> bool:
        """True: every layer keeps all positions."""
        return True

    def own_counts(self, video: Video) -> tuple[int, int]:
        """Count the visual tokens and the newline tokens of a video after the checkpoint's own pooling."""
        return self.language_model.own_counts(video.source_shape[0])

    def encode(self, pixels: torch.Tensor, needs: Collection[Need], timer: StageTimer) -> tuple[torch.Tensor, Evidence]:
        """Run the vision tower on frames (T, 3, S, S), and return features (T, P, C) and evidence about them."""
        return self.language_model.vision_features(pixels, timer, needs, self.language_model.tower_steps)

    def evidence(self, question: str, needs: Collection[Need]) -> Evidence:
        """Embed a question, without a template around it; see `Question`.

        Raises:
            ValueError: If a need is of another kind, or requires the tower's text half and it was not loaded.
        """
        check_offered(needs, (Question,), "a question")
        tower, found = self.language_model.get_vision_tower(), dict[Need, torch.Tensor]()
        tower.check_needs(needs)
        for need in needs:
            if need == Question("tower") and tower.text_tower is not None:  # check_needs refuses it without one
                found[need] = tower.text_tower.embed(question, self._embeddings.weight.device)
                continue
            ids = torch.as_tensor(self.tokenizer(question, add_special_tokens=False).input_ids)
            found[need] = self._embed(ids)
        return found

    def compress(self, features: torch.Tensor, evidence: Evidence, timer: StageTimer) -> EncodedVideo:
        """Project and compress the features of a video."""
        return self.language_model.encode_features(features, timer, evidence)

    def encode_images(self, images: Sequence[Image.Image], timer: StageTimer) -> list[EncodedImage]:
        """Encode images; several images of one question are padded to squares instead of tiled, as in training."""
        model = self.language_model
        config = self._image_settings(len(images))
        weight = model.get_input_embeddings().weight
        with timer.on_host("preprocess"):
            pixels = process_images(list(images), self.recipe, config)
            if isinstance(pixels, torch.Tensor):
                pixels = pixels.to(weight.device, weight.dtype)
            else:
                pixels = [image.to(weight.device, weight.dtype) for image in pixels]
        with timer.stage("vision"):
            tokens = model.encode_visuals(pixels, ("image",) * len(images), tuple(image.size for image in images))
        return [
            EncodedImage(one, (StageCheck.of("vision tower or projector", one),))
            for one in tokens
            if isinstance(one, torch.Tensor)  # as images always are
        ]

    def _image_settings(self, num_images: int) -> Any:
        """Return the settings by which `num_images` images of one prompt become pixels."""
        config = copy.copy(self.language_model.config)
        if num_images > 1:
            config.image_aspect_ratio = "pad"
        return config

    def prompt(
        self, context: str, visuals: Sequence[Visual], clips: Sequence[ClipTimes], answer: str | None = None
    ) -> Prompt:
        """Build a prompt from a question and its visuals, by the conversation template."""
        return self._prompt(self._question(context, visuals, clips), visuals, answer)

    def _question(self, context: str, visuals: Sequence[Visual], clips: Sequence[ClipTimes]) -> str:
        """Write the user's turn, with a placeholder for each visual."""
        return self._prompts.question(context, len(visuals), clips)

    def _prompt(self, question: str, visuals: Sequence[Visual], answer: str | None) -> Prompt:
        text = self._prompts.prompt(question, answer)
        ids = self._prompts.ids(text, len(visuals))
        num_answer = num_closing = 0
        if answer is not None:
            opened = self._prompts.prompt(question)
            num_closing = len(self._prompts.ids(text[text.index(answer, len(opened)) + len(answer) :], 0))
            num_answer = len(ids) - len(self._prompts.ids(opened, len(visuals)))
        return self._embedded(ids, visuals, num_answer, num_closing)

    def _embedded(self, ids: torch.Tensor, visuals: Sequence[Visual], num_answer: int, num_closing: int) -> Prompt:
        is_text = ids != IMAGE_TOKEN_INDEX
        places = (~is_text).nonzero().flatten().tolist()
        if len(places) != len(visuals):
            raise ValueError(f"the prompt has {len(places)} placeholders and {len(visuals)} visuals")
        lengths = [end - start - 1 for start, end in zip([-1, *places], [*places, len(ids)], strict=True)]
        texts = self._embed(ids[is_text]).split(lengths)
        pieces, videos, start = [texts[0]], [], len(texts[0])
        for visual, text in zip(visuals, texts[1:], strict=True):
            if isinstance(visual, EncodedVideo):
                videos.append((start, visual))
            pieces += [visual.embeds.to(text), text]
            start += len(visual.embeds) + len(text)
        return Prompt(ids, tuple(pieces), tuple(videos), num_answer, num_closing)

    def identity(self) -> Mapping[str, Any] | None:
        """Return all that features depend on besides the frames; None if the tower is offloaded."""
        tower, config = self.language_model.get_vision_tower(), self.language_model.config
        weights = weights_digest(tower.vision_tower)
        if weights is None:
            return None
        head = None if tower.pool_head is None else weights_digest(tower.pool_head.modules())
        text = None if tower.text_tower is None else weights_digest(tower.text_tower.modules())
        encoder = getattr(tower.vision_tower, "config", None)  # OpenCLIP's have none, and one kind of attention
        return {
            "image_processor": repr(tower.image_processor),
            "attention": getattr(encoder, "_attn_implementation", None),
            "tower": tower.name,
            "layer": config.mm_vision_select_layer,
            "feature": config.mm_vision_select_feature,
            "weights": weights,
            "dtype": str(tower.dtype),
            "pool_head": head,
            "text_tower": text,
        }

    def facts(self) -> Mapping[str, Any]:
        """Return facts about the model for the record of a run."""
        config = self.language_model.config
        return {
            "revision": getattr(config, "_commit_hash", None),
            "vision_tower": self.language_model.get_vision_tower().name,
            "mm_newline_position": config.mm_newline_position,
            "attn_implementation": getattr(config, "_attn_implementation", None),
        }

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        embeds: torch.Tensor = self._embeddings(ids.to(self._embeddings.weight.device, non_blocking=True))
        return embeds

    @property
    def _embeddings(self) -> torch.nn.Embedding:
        embeddings: torch.nn.Embedding = self.language_model.get_input_embeddings()
        return embeddings
