"""Tiny models of the LLaVA families, whose video is one run of placeholders."""

from __future__ import annotations

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

from native_models.parts import DECODER, chat_template, make_tokenizer, randomize

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 8,
}


def llava_onevision() -> tuple[PreTrainedModel, ProcessorMixin]:
    """LLaVA-OneVision with 7x7 patches per frame, which it pools to 4x4."""
    tokenizer = make_tokenizer("<image>", "<video>")
    pinpoints = [[56, 56], [56, 112], [112, 56]]
    square = {"height": 56, "width": 56}
    model = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
            text_config=Qwen2Config(vocab_size=len(tokenizer), **DECODER),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
            image_grid_pinpoints=pinpoints,
        )
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=pinpoints),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=49,
        vision_feature_select_strategy="full",
        chat_template=chat_template("<image>\n", "<video>\n"),
    )
    return randomize(model), processor
