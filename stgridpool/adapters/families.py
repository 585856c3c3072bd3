"""The families of native models, and the adapter for a model."""

from __future__ import annotations

from typing import Any

from stgridpool.adapters.adapter import Adapter
from stgridpool.adapters.llava_onevision import LlavaOnevisionAdapter
from stgridpool.adapters.qwen2_vl import Qwen2VLAdapter
from stgridpool.adapters.qwen3_vl import Qwen3VLAdapter

FAMILIES: tuple[type[Adapter], ...] = (LlavaOnevisionAdapter, Qwen2VLAdapter, Qwen3VLAdapter)
"""Each file of a family defines one; a new family is added here."""


def adapter_for(model: Any) -> Adapter:
    """Return the adapter for a model of transformers, by ``model.config.model_type``.

    Raises:
        ValueError: If no family serves it; the message lists those that there are.
    """
    name = getattr(getattr(model, "config", None), "model_type", None)
    for family in FAMILIES:
        if name in family.model_types:
            return family()
    known = ", ".join(sorted(one for family in FAMILIES for one in family.model_types))
    raise ValueError(
        f"{type(model).__name__} (model_type {name!r}) is not supported; supported are {known}. To add a family, write "
        "a subclass of stgridpool.adapters.Adapter and name it in stgridpool/adapters/families.py"
    )
