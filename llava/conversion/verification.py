"""Greedy answers of both classes to the same prompts, from the same weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from llava.conversation import conv_templates
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

_FRAMES = 4
_QUESTION = "What happens, and what is shown?"
_GREEDY: Mapping[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": 8}
# What the native class always does: the layouts then agree whatever the checkpoint was trained on.
_NATIVE_LAYOUT = {"mm_newline_position": "one_token", "mm_spatial_pool_mode": "bilinear"}
Ids = dict[str, list[int]]


@dataclass(frozen=True)
class Shown:
    """What is shown: noise at the tower's own resolution, so that no resizing can differ.

    Attributes:
        frames: (T, S, S, 3) uint8.
    """

    frames: np.ndarray

    @classmethod
    def of_size(cls, side: int) -> "Shown":
        """Make frames with sides of `side` pixels."""
        return cls(np.random.default_rng(0).integers(0, 256, (_FRAMES, side, side, 3), dtype=np.uint8))

    @property
    def image(self) -> Image.Image:
        """The first frame as an image."""
        return Image.fromarray(self.frames[0])


def check_answers(original: Path, native: Path, device: str) -> None:
    """Check that both classes continue a text, an image and a video prompt with the same ids, in float32.

    The models are loaded one after the other. The original one is set to the native class's layout of videos, a
    newline after the last frame and bilinear pooling.

    Args:
        original: Folder of the checkpoint in LLaVA-NeXT's format.
        native: Folder of the native one.
        device: Device of the models, such as cpu or cuda:0.

    Raises:
        ValueError: If answers differ, or the native checkpoint lacks weights.
    """
    expected, side = original_ids(original, device)
    found = native_ids(native, Shown.of_size(side), device)
    for kind, ids in expected.items():
        if found[kind] != ids:
            raise ValueError(
                f"the same weights answer the {kind} prompt with ids {ids} in LLaVA-NeXT's format and {found[kind]} in "
                "the native one; nothing was written (--no-verify writes it all the same)"
            )


@torch.inference_mode()
def original_ids(folder: Path, device: str) -> tuple[Ids, int]:
    """Return the new ids per kind of prompt, and the side of the vision tower's input in pixels."""
    tokenizer, model, processor, _ = load_pretrained_model(
        str(folder), None, None, device_map=device, torch_dtype="float32", attn_implementation="sdpa",
        overwrite_config=_NATIVE_LAYOUT,
    )  # fmt: skip
    shown = Shown.of_size(processor.image_size)
    video = processor.preprocess(shown.frames, return_tensors="pt")["pixel_values"].to(device)
    image = process_images([shown.image], processor, model.config)
    visuals: dict[str, dict[str, Any]] = {
        "text": {},
        "image": {
            "images": [one.to(device) for one in image], "image_sizes": [shown.image.size], "modalities": ["image"]
        },
        "video": {"images": [video], "modalities": ["video"]},
    }  # fmt: skip
    ids = {}
    for kind, arguments in visuals.items():
        conversation = conv_templates["qwen_1_5"].copy()
        conversation.append_message(conversation.roles[0], f"<image>\n{_QUESTION}" if arguments else _QUESTION)
        conversation.append_message(conversation.roles[1], None)
        prompt = tokenizer_image_token(conversation.get_prompt(), tokenizer, return_tensors="pt")
        answer = model.generate(torch.as_tensor(prompt)[None].to(device), **arguments, **_GREEDY)
        ids[kind] = answer[0].tolist()
    return ids, processor.image_size


@torch.inference_mode()
def native_ids(folder: Path, shown: Shown, device: str) -> Ids:
    """Return the new ids per kind of prompt.

    Raises:
        ValueError: If the checkpoint lacks weights of the class.
    """
    processor = LlavaOnevisionProcessor.from_pretrained(folder)
    loaded: Any = LlavaOnevisionForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
    )
    model, info = loaded
    missing = sorted(set(info["missing_keys"]) - ({"lm_head.weight"} if model.config.tie_word_embeddings else set()))
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        raise ValueError(f"{folder}: the native class finds other weights than its own: {info}")
    model.to(device)
    visuals: dict[str, dict[str, Sequence[Any]]] = {
        "text": {},
        "image": {"images": [shown.image]},
        "video": {"videos": [shown.frames]},
    }
    ids = {}
    for kind, arguments in visuals.items():
        content = [{"type": kind}] if arguments else []
        messages: list[dict[str, Any]] = [{"role": "user", "content": [*content, {"type": "text", "text": _QUESTION}]}]
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], **arguments, return_tensors="pt").to(device)
        answer = model.generate(**inputs, **_GREEDY)
        ids[kind] = answer[0, inputs["input_ids"].shape[1] :].tolist()
    return ids
