"""Finding the key-value cache among a decoder's inputs, whatever transformers calls it.

transformers 5.24 renamed `past_key_values` to `cache` in every forward. Hooks therefore look for the cache by its type,
and calls take the name from the signature of a function that all decoders call.
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
    """The cache among a forward's inputs, or None."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
