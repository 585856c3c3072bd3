"""Tiny random models of every family, with their real processors, made without a network.

Tests import this as `from native_models.families import build`: pyproject.toml names the folder `tests/shared`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from transformers import CONFIG_MAPPING, PreTrainedModel, ProcessorMixin

from native_models import frame_runs, llava, qwen

Builder = Callable[[], tuple[PreTrainedModel, ProcessorMixin]]
BUILDERS: dict[str, Builder] = {
    "llava_onevision": llava.llava_onevision,
    "llava_next_video": llava.llava_next_video,
    "video_llava": llava.video_llava,
    "qwen2_vl": qwen.qwen2_vl,
    "qwen2_5_vl": qwen.qwen2_5_vl,
    "qwen3_vl": qwen.qwen3_vl,
    "qwen3_vl_moe": qwen.qwen3_vl_moe,
    "qwen3_5": qwen.qwen3_5,
    "qwen3_5_moe": qwen.qwen3_5_moe,
    "glm4v": frame_runs.glm4v,
    "glm4v_moe": frame_runs.glm4v_moe,
    "internvl": frame_runs.internvl,
    "smolvlm": frame_runs.smolvlm,
    "video_llama_3": frame_runs.video_llama_3,
}
if "molmo2" in CONFIG_MAPPING:  # 5.17 lacks it
    from native_models.molmo2 import molmo2

    BUILDERS["molmo2"] = molmo2
DENSE = [name for name in BUILDERS if not name.endswith("_moe")]  # experts change nothing outside the decoder's layers


@cache
def build(name: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return the model, in evaluation mode and float32, and the processor of a family; both are shared: do not change.

    Args:
        name: `config.model_type` of the family, a key of `BUILDERS`.
    """
    return BUILDERS[name]()


def save(name: str, folder: Path) -> Path:
    """Write a family's checkpoint, as `from_pretrained` reads it, and return the folder."""
    for part in build(name):
        part.save_pretrained(folder)
    return folder
