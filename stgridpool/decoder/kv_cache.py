"""The key-value cache among the inputs of a decoder, under any name that transformers gives it.

transformers 5.24 renamed `past_key_values` to `cache` in every forward. So hooks find the cache by its type, and calls
take its name from the signature of a function that all decoders call.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import Cache
from transformers.masking_utils import create_causal_mask

CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
"""Name under which this version of transformers takes a cache."""


def find_cache(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Cache | None:
    """Find the cache among the inputs of a forward; None if there is none."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
