"""LLaVA on Qwen2: the model of the LLaVA-Video and LLaVA-OneVision checkpoints."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2ForCausalLM, Qwen2Model
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.constants import IMAGE_TOKEN_INDEX
from llava.encoded_video import EncodedVideo
from llava.model.compression import Visual
from llava.model.language_model.llava_qwen_config import LlavaQwenConfig
from llava.model.projector import build_projector
from llava.model.splice import splice_batch
from llava.model.vision import build_vision_tower
from llava.model.visual_inputs import VisualInputs
from stgridpool.decoder.kv_cache import CACHE_ARGUMENT
from stgridpool.finite import LogitsWatch

__all__ = ["LlavaQwenConfig", "LlavaQwenForCausalLM", "LlavaQwenModel"]


class LlavaQwenModel(Qwen2Model):
    """Qwen2's decoder with a vision tower, a projector and a newline token.

    Raises:
        ValueError: If the configuration requires an unsupported part.
    """

    config_class = LlavaQwenConfig
    _no_split_modules = ["Qwen2DecoderLayer", "SiglipTower", "ClipTower", "OpenClipTower"]  # noqa: RUF012  transformers' class attribute

    def __init__(self, config: LlavaQwenConfig) -> None:
        if config.add_faster_video:
            raise ValueError("add_faster_video=True is not supported: LLaVA-NeXT's released code cannot run it either")
        if config.mm_resampler_type is not None:
            raise ValueError(f"mm_resampler_type must be null, got {config.mm_resampler_type!r}")
        super().__init__(config)
        self.vision_tower = build_vision_tower(config)
        vision_width = self.vision_tower.hidden_size
        if config.mm_hidden_size not in (None, vision_width):
            raise ValueError(
                f"mm_hidden_size must be {vision_width}, the vision tower's width, got {config.mm_hidden_size}"
            )
        vision_width *= config.features_per_patch
        self.mm_projector = build_projector(config.mm_projector_type, vision_width, config.hidden_size)
        newline = torch.randn(config.hidden_size) / config.hidden_size**0.5
        self.image_newline = nn.Parameter(newline) if "unpad" in config.mm_patch_merge_type else None
        self.post_init()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "compressor":
            raise AttributeError(f"{type(self).__name__} has no compressor: assign it to the model around it")
        super().__setattr__(name, value)


class LlavaQwenForCausalLM(VisualInputs, Qwen2ForCausalLM):
    """A Qwen2 language model that reads images and videos."""

    config_class = LlavaQwenConfig
    _no_split_modules = LlavaQwenModel._no_split_modules

    def __init__(self, config: LlavaQwenConfig) -> None:
        super(Qwen2ForCausalLM, self).__init__(config)  # not its parent's: that would build a second decoder
        self.model = LlavaQwenModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self) -> LlavaQwenModel:
        """Return the model without the language-modelling head."""
        model: LlavaQwenModel = self.model
        return model

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        images: torch.Tensor | Sequence[Visual] | None = None,
        image_sizes: Sequence[Sequence[int]] | None = None,
        modalities: str | Sequence[str] = ("image",),
        logits_to_keep: int | torch.Tensor = 0,
        dpo_forward: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute logits, and the loss if labels are given.

        With a compressor inside the language model, there are fewer positions and thus fewer logits. To continue from
        the cache, use `stgridpool.decoder.session.VideoSession`.

        Args:
            input_ids: (B, n) ids, with a placeholder for each image or video.
            attention_mask: (B, n).
            position_ids: (B, n).
            past_key_values: Cache of earlier positions, by the name that transformers used before 5.24.
            inputs_embeds: (B, L, D), instead of ids and images.
            labels: (B, n); -100 for positions without a loss.
            use_cache: Whether to return a cache.
            images: See `encode_visuals`.
            image_sizes: See `encode_visuals`.
            modalities: See `encode_visuals`.
            logits_to_keep: Number of last positions for which to compute logits, or their indices; 0 for all. For a
                long video, all logits take more memory than the model.
            dpo_forward: Not supported, since it is for training.
            **kwargs: Passed to Qwen2, including `cache`, the newer name of the cache.

        Raises:
            NotImplementedError: If `dpo_forward` is true.
            ValueError: If there are placeholders but no images, or labels and a compressor inside the language model.
        """
        if dpo_forward:
            raise NotImplementedError("dpo_forward belongs to training, which this model does not support")
        compressing: AbstractContextManager[Any] = nullcontext()
        if inputs_embeds is None and input_ids is not None:
            images, compressing = self.encode_prompts(input_ids, attention_mask, images, modalities, image_sizes)
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels = (
                self.prepare_inputs_labels_for_multimodal(
                    input_ids, position_ids, attention_mask, past_key_values, labels, images, modalities, image_sizes
                )
            )
            _check_no_placeholders(input_ids)
        if labels is not None and self.decoder_steps is not None:
            raise ValueError("a compressor inside the language model removes positions, so pass no labels")
        if past_key_values is not None:
            kwargs[CACHE_ARGUMENT] = past_key_values
        with compressing:
            output: CausalLMOutputWithPast = super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                labels=labels,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        return output

    @torch.no_grad()
    def generate(  # LLaVA-NeXT's signature
        self,
        inputs: torch.Tensor | None = None,
        images: torch.Tensor | Sequence[Visual] | None = None,
        image_sizes: Sequence[Sequence[int]] | None = None,
        modalities: str | Sequence[str] = ("image",),
        watch: LogitsWatch | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continues prompts; what is returned are the new tokens only.

        Generation starts from embeddings, so a repetition penalty sees new tokens only, as it does in LLaVA-NeXT.
        Prompts of different lengths are padded on the left whatever the checkpoint says (the original continues the
        padding).

        Args:
            inputs: (B, n) ids with a placeholder for each image or video.
            images: See `encode_visuals`.
            image_sizes: See `encode_visuals`.
            modalities: See `encode_visuals`.
            watch: Notes which answers come from logits that are not finite, for a caller that reads it together with
                the answers and the `checks` of the videos; without it, an error is raised.
            **kwargs: As in transformers; `attention_mask` (B, n) says which ids are real. Positions follow from it, so
                `position_ids` is not used.

        Raises:
            NotImplementedError: `inputs_embeds` is given.
            ValueError: There are no ids, or placeholders and no images.
            NonFiniteError: An answer comes from features or logits that are not finite.
        """
        if "inputs_embeds" in kwargs:
            raise NotImplementedError("generate takes ids and images; inputs_embeds is not supported")
        if inputs is None:
            raise ValueError("generate needs the prompt's ids as inputs")
        kwargs.pop("position_ids", None)
        mask = kwargs.pop("attention_mask", None)
        mask = torch.ones_like(inputs) if mask is None else mask
        if images is not None and len(images) and inputs.shape[1] > 1:
            images = self.encode_visuals(images, modalities, image_sizes)
        images, compressing = self.encode_prompts(inputs, mask, images, modalities, image_sizes)
        padding = {"padding_side": "left"} if len(inputs) > 1 else {}
        _, _, new_mask, _, embeds, _ = self.prepare_inputs_labels_for_multimodal(
            inputs, None, mask, None, None, images, modalities, image_sizes, **padding
        )
        if embeds is None:
            _check_no_placeholders(inputs)
            text = splice_batch(inputs, [], self.get_input_embeddings(), attention_mask=mask, padding_side="left")
            embeds, new_mask = text.embeds, text.attention_mask
        own_watch = watch or LogitsWatch(self)
        continued: Any = super()
        with compressing, own_watch.attached():
            output = continued.generate(inputs_embeds=embeds, attention_mask=new_mask.long(), **kwargs)
        if watch is None:
            videos = [] if images is None else [visual for visual in images if isinstance(visual, EncodedVideo)]
            own_watch.check([check for video in videos for check in video.checks])
        return output


def _check_no_placeholders(input_ids: torch.Tensor | None) -> None:
    """Check that no prompt still has placeholders; a single id is being generated and has none.

    Raises:
        ValueError: If one has.
    """
    if input_ids is not None and input_ids.shape[1] > 1 and bool((input_ids == IMAGE_TOKEN_INDEX).any()):
        raise ValueError("the prompt has image placeholders (<image>), and no images were given")


AutoConfig.register(LlavaQwenConfig.model_type, LlavaQwenConfig, exist_ok=True)
AutoModelForCausalLM.register(LlavaQwenConfig, LlavaQwenForCausalLM, exist_ok=True)
