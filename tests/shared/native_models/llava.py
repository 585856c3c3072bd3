"""Tiny models of the LLaVA families, whose video is one run of placeholders."""

from __future__ import annotations

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Config,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from native_models.parts import DECODER, FOUR_LAYERS, chat_template, make_tokenizer, randomize

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
TEMPLATE = chat_template("<image>\n", "<video>\n")


def llava_onevision() -> tuple[PreTrainedModel, ProcessorMixin]:
    """LLaVA-OneVision with 7x7 patches per frame, which it pools to 4x4."""
    tokenizer = make_tokenizer("<image>", "<video>")
    pinpoints = [[56, 56], [56, 112], [112, 56]]
    square = {"height": 56, "width": 56}
    model = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**VISION, image_size=56, patch_size=8, vision_use_head=False),
            text_config=Qwen2Config(vocab_size=len(tokenizer), **FOUR_LAYERS),
            **_ids(tokenizer),
            image_grid_pinpoints=pinpoints,
        )
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=pinpoints),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=49,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )
    return randomize(model), processor


def llava_next_video() -> tuple[PreTrainedModel, ProcessorMixin]:
    """LLaVA-NeXT-Video with 8x8 patches per frame, which it pools to 4x4."""
    tokenizer = make_tokenizer("<image>", "<video>")
    pinpoints = [[32, 64], [64, 32]]
    model = LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(
            vision_config=CLIPVisionConfig(**VISION, image_size=32, patch_size=4),
            text_config=LlamaConfig(vocab_size=len(tokenizer), **DECODER),
            image_grid_pinpoints=pinpoints,
            **_ids(tokenizer),
        )
    )
    processor = LlavaNextVideoProcessor(
        image_processor=LlavaNextImageProcessor(image_grid_pinpoints=pinpoints, **CROPPED),
        tokenizer=tokenizer,
        video_processor=LlavaNextVideoVideoProcessor(**CROPPED),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return randomize(model), processor


def video_llava() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Video-LLaVA with 4x4 patches and a class token per frame."""
    tokenizer = make_tokenizer("<image>", "<video>")
    model = VideoLlavaForConditionalGeneration(
        VideoLlavaConfig(
            vision_config=CLIPVisionConfig(**VISION, image_size=32, patch_size=8),
            text_config=LlamaConfig(vocab_size=len(tokenizer), **DECODER),
            **_ids(tokenizer),
        )
    )
    processor = VideoLlavaProcessor(
        image_processor=VideoLlavaImageProcessor(**CROPPED),
        tokenizer=tokenizer,
        video_processor=VideoLlavaVideoProcessor(**CROPPED),
        patch_size=8,
        chat_template=TEMPLATE,
    )
    return randomize(model), processor


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {f"{kind}_token_index": tokenizer.convert_tokens_to_ids(f"<{kind}>") for kind in ("image", "video")}
