"""Tiny models of the families that write text between the frames of a video, with the tokens that they need."""

from __future__ import annotations

from typing import Any

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)

from native_models.parts import DECODER, WIDTH, chat_template, make_tokenizer, randomize

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
SQUARE = {"height": 32, "width": 32}
GLM_TOKENS = {
    "image": "image_token_id",
    "video": "video_token_id",
    "begin_of_image": "image_start_token_id",
    "end_of_image": "image_end_token_id",
    "begin_of_video": "video_start_token_id",
    "end_of_video": "video_end_token_id",
}
PIXELS = {"size": {"shortest_edge": 8 * 8, "longest_edge": 64 * 64 * 64}, "patch_size": 4}


def internvl() -> tuple[PreTrainedModel, ProcessorMixin]:
    """InternVL with 4x4 tokens per tile; images are cut into one to four tiles, and a thumbnail."""
    tokenizer = make_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config=VISION | {"image_size": 32, "patch_size": 4},
        text_config=DECODER | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4),
        tokenizer,
        InternVLVideoProcessor(size=SQUARE),
        image_seq_length=16,
        chat_template=chat_template("<IMG_CONTEXT>\n", "<video>\n"),
    )
    return randomize(InternVLForConditionalGeneration(config)), processor


def smolvlm() -> tuple[PreTrainedModel, ProcessorMixin]:
    """SmolVLM with 4x4 tokens per frame; images are not split."""
    tokenizer = make_tokenizer(
        "<video>",
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        end_of_utterance_token="<end_of_utterance>",
        global_image_token="<global-img>",
    )
    edge = {"longest_edge": 32}
    config = SmolVLMConfig(
        vision_config=VISION | {"image_size": 32, "patch_size": 4},
        text_config=DECODER | {"model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,  # 5.17 takes it from here, and its default is beyond this vocabulary
        scale_factor=2,
    )
    sampling = {"video_size": edge, "max_frames": 64, "fps": 2}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False),
        tokenizer,
        SmolVLMVideoProcessor(size=edge, max_image_size=edge, video_sampling=sampling),
        image_seq_len=16,
        chat_template=chat_template("<image>", "<video>"),
    )
    return randomize(SmolVLMForConditionalGeneration(config)), processor


def video_llama_3() -> tuple[PreTrainedModel, ProcessorMixin]:
    """VideoLLaMA3, whose token is 8x8 pixels of a frame, and 4x4 pixels of an image."""
    tokenizer = make_tokenizer("<|image_pad|>", "<|video_pad|>")
    config = VideoLlama3Config(
        vision_config=VISION | {"patch_size": 4},
        text_config=DECODER | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )
    processor = VideoLlama3Processor(
        VideoLlama3ImageProcessor(**PIXELS),
        tokenizer,
        VideoLlama3VideoProcessor(**PIXELS),
        chat_template=chat_template("<|image_pad|>\n", "<|video_pad|>\n"),
    )
    return randomize(VideoLlama3ForConditionalGeneration(config)), processor


def glm4v() -> tuple[PreTrainedModel, ProcessorMixin]:
    """GLM-4V, whose token is 8x8 pixels of two frames."""
    tokenizer = make_tokenizer(*(f"<|{name}|>" for name in GLM_TOKENS))
    return randomize(Glm4vForConditionalGeneration(Glm4vConfig(**_glm(tokenizer)))), _glm_processor(tokenizer)


def glm4v_moe() -> tuple[PreTrainedModel, ProcessorMixin]:
    """GLM-4V with four experts, two of them at work, in all but the first layer."""
    tokenizer = make_tokenizer(*(f"<|{name}|>" for name in GLM_TOKENS))
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
    config = Glm4vMoeConfig(**_glm(tokenizer, **experts))
    return randomize(Glm4vMoeForConditionalGeneration(config)), _glm_processor(tokenizer)


def _glm(tokenizer: PreTrainedTokenizerFast, **settings: int) -> dict[str, Any]:
    vision = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "image_size": 32}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    return {
        "vision_config": vision | {"patch_size": 4, "out_hidden_size": WIDTH},
        "text_config": DECODER | {"vocab_size": len(tokenizer), "rope_parameters": rope} | settings,
        **{setting: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name, setting in GLM_TOKENS.items()},
    }


def _glm_processor(tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    image, video = "<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_video|><|video|><|end_of_video|>"
    return Glm4vProcessor(
        Glm4vImageProcessor(**PIXELS),
        tokenizer,
        Glm4vVideoProcessor(**PIXELS),
        chat_template=chat_template(image, video),
    )
