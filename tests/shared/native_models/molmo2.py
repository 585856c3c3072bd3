"""A tiny Molmo2, which transformers 5.17 does not have."""

from __future__ import annotations

from transformers import (
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2VideoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from native_models.parts import DECODER, WIDTH, chat_template, make_tokenizer, randomize

HEADS = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
SQUARE = {"height": 32, "width": 32}
MARKS = ["<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<frame_start>", "<frame_end>"]
SETTINGS = {
    "image_start_token_id": "<im_start>",
    "image_end_token_id": "<im_end>",
    "image_patch_id": "<im_patch>",
    "low_res_image_start_token_id": "<low_res_im_start>",
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}


def molmo2() -> tuple[PreTrainedModel, ProcessorMixin]:
    """Molmo2 with 8x8 patches per frame, of which each token pools 3x3."""
    tokenizer = make_tokenizer(*MARKS, "<im_low>", image_token="<|image|>", video_token="<|video|>")
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = Molmo2Config(
        vision_config=HEADS | {"num_hidden_layers": 3, "image_size": [32, 32], "patch_size": 4},
        adapter_config=HEADS | {"vision_feature_layer": [2, 0], "text_hidden_size": WIDTH},
        text_config=DECODER
        | {"vocab_size": len(tokenizer), "additional_vocab_size": 0, "head_dim": 16, "rope_parameters": rope},
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in SETTINGS.items()},
    )
    processor = Molmo2Processor(
        Molmo2ImageProcessor(size=SQUARE, patch_size=4, overlap_margins=[1, 1], max_crops=2),
        Molmo2VideoProcessor(size=SQUARE, patch_size=4),
        tokenizer,
        chat_template=chat_template("<|image|>", "<|video|>"),
    )
    return randomize(Molmo2ForConditionalGeneration(config)), processor
