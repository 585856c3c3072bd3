"""The families of native models, and the adapter for a model."""

from __future__ import annotations

from typing import Any

from stgridpool.adapters.adapter import Adapter
from stgridpool.adapters.glm4v import Glm4vAdapter
from stgridpool.adapters.internvl import InternVLAdapter
from stgridpool.adapters.llava_next_video import LlavaNextVideoAdapter
from stgridpool.adapters.llava_onevision import LlavaOnevisionAdapter
from stgridpool.adapters.molmo2 import Molmo2Adapter
from stgridpool.adapters.qwen2_vl import Qwen2VLAdapter
from stgridpool.adapters.qwen3_5 import Qwen3_5Adapter
from stgridpool.adapters.qwen3_vl import Qwen3VLAdapter
from stgridpool.adapters.smolvlm import SmolVLMAdapter
from stgridpool.adapters.video_llama_3 import VideoLlama3Adapter
from stgridpool.adapters.video_llava import VideoLlavaAdapter

FAMILIES: tuple[type[Adapter], ...] = (
    LlavaOnevisionAdapter,
    LlavaNextVideoAdapter,
    VideoLlavaAdapter,
    Qwen2VLAdapter,
    Qwen3VLAdapter,
    Qwen3_5Adapter,
    Glm4vAdapter,
    InternVLAdapter,
    SmolVLMAdapter,
    VideoLlama3Adapter,
    Molmo2Adapter,
)
"""Each file of a family defines one; a new family is added here."""


def adapter_for(model: Any) -> Adapter:
    """Return the adapter for a model of transformers, by ``model.config.model_type``.

    Raises:
        ValueError: If no family supports it (the message lists those that are), if it only wraps a model, or if a
            `compressor` was assigned to it: native models ignore that, while models of `llava` work that way.
    """
    if "compressor" in getattr(model, "__dict__", {}):
        raise ValueError(
            f"{type(model).__name__} ignores the compressor that was assigned to it: `del model.compressor`, and use "
            "`with stgridpool.compress(model, compressor):`"
        )
    name = getattr(getattr(model, "config", None), "model_type", None)
    family = family_of(name, type(model).__name__)
    if not hasattr(type(model), "get_decoder"):
        raise ValueError(f"{type(model).__name__} is a wrapper; pass the transformers model inside it")
    return family()


def family_of(model_type: Any, asker: str) -> type[Adapter]:
    """Return the family of models with this `model_type`.

    Args:
        model_type: As in config.json.
        asker: What has it, for the message.

    Raises:
        ValueError: If no family supports it; the message lists those that are supported.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(one for family in FAMILIES for one in family.model_types))
    raise ValueError(
        f"{asker} (model_type {model_type!r}) is not supported; supported are {known}. To add a family, write a "
        "subclass of stgridpool.adapters.Adapter and name it in stgridpool/adapters/families.py"
    )
