"""The files of a native processor: image and video preprocessing, number of tokens, and the chat template.

Source: https://huggingface.co/llava-hf/llava-onevision-qwen2-7b-ov-hf; the conversation is LLaVA-NeXT's `qwen_1_5`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.conversation import conv_templates
from llava.conversion.tokenizer_files import write_json

_BICUBIC = 3
_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' -%}
{{- 'SYSTEM<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for item in message['content'] -%}
{%- if item['type'] == 'text' -%}
{{- item['text'] -}}
{%- else -%}
{{- '<video>' if item['type'] == 'video' else '<image>' -}}
{%- if not loop.last -%}
{{- '\\n' if loop.nextitem['type'] == 'text' else ' ' -}}
{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def chat_template() -> str:
    """Return the template of LLaVA-NeXT's conversation: visuals first in a line of their own, one placeholder each."""
    system = conv_templates["qwen_1_5"].system.replace("\n", "\\n")
    return _TEMPLATE.replace("SYSTEM", system)


def write_processor(folder: Path, native: Mapping[str, Any]) -> None:
    """Write the files of the processor for a native configuration to `folder`.

    Args:
        folder: The native checkpoint.
        native: The content of its config.json.
    """
    vision = native["vision_config"]
    side = vision["image_size"]
    pixels = _pixel_settings(side)
    images = {
        "image_grid_pinpoints": native["image_grid_pinpoints"],
        "image_processor_type": "LlavaOnevisionImageProcessor",
    }
    write_json(folder / "preprocessor_config.json", {**pixels, **images, "do_pad": True})
    videos = {"do_sample_frames": False, "video_processor_type": "LlavaOnevisionVideoProcessor"}
    write_json(folder / "video_preprocessor_config.json", {**pixels, **videos})
    write_json(
        folder / "processor_config.json",
        {
            "image_token": "<image>",
            "num_image_tokens": (side // vision["patch_size"]) ** 2,
            "processor_class": "LlavaOnevisionProcessor",
            "video_token": "<video>",
            "vision_aspect_ratio": native["vision_aspect_ratio"],
            "vision_feature_select_strategy": "full",
        },
    )
    (folder / "chat_template.jinja").write_text(chat_template(), encoding="utf-8")


def _pixel_settings(side: int) -> dict[str, Any]:
    """Return how pixels become values of -1 to 1, for images and videos with sides of `side` pixels."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "LlavaOnevisionProcessor",
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
