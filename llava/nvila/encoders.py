"""The encoders that a checkpoint's configuration names: the tokens around images and frames, and pooling over time.

Source: https://github.com/NVlabs/VILA (April 2025): BasicImageEncoder, BasicVideoEncoder, TSPVideoEncoder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IMAGE, BASIC, TSP = "BasicImageEncoder", "BasicVideoEncoder", "TSPVideoEncoder"
PoolSizes = tuple[tuple[int, int, int], ...]

_KINDS = {"image_encoder": (IMAGE,), "video_encoder": (BASIC, TSP)}
_TEXTS = {"start_tokens": None, "end_tokens": "\n", "sep_tokens": None}


@dataclass(frozen=True)
class MediaEncoder:
    """How visual tokens are laid out.

    Attributes:
        start: Text before every image or frame; empty for none.
        end: Text after every image or frame.
        sep: Text after all frames of one pooling; videos with pooling only.
        pool_sizes: Blocks of (frames, rows, columns) that become one token; each entry pools the whole video, and their
            results follow each other. Empty: no pooling.
    """

    start: str = ""
    end: str = "\n"
    sep: str = ""
    pool_sizes: PoolSizes = ()

    @classmethod
    def of(cls, key: str, value: Any, source: str) -> "MediaEncoder":
        """Read an encoder from a configuration.

        Args:
            key: "image_encoder" or "video_encoder".
            value: Its value: an object, the JSON text of one, or None for the default.
            source: Source of the configuration, for messages.

        Raises:
            ValueError: If the encoder or one of its settings is not supported.
        """
        settings = _settings(key, value, source)
        target = str(settings.pop("_target_", _KINDS[key][0])).rpartition(".")[2]
        if target not in _KINDS[key]:
            raise ValueError(f"{source}: {key} must be {' or '.join(_KINDS[key])}, got {target!r}")
        known = {*_TEXTS} - (set() if target == TSP else {"sep_tokens"}) | ({"pool_sizes"} if target == TSP else set())
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"{source}: {key} has unknown settings {unknown}; {target} has {sorted(known)}")
        texts = {name: settings.get(name, default) or "" for name, default in _TEXTS.items()}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"{source}: {name} of {key} must be a text or null, got {text!r}")
        sizes = _pool_sizes(settings.get("pool_sizes"), f"{source}: {key}") if target == TSP else ()
        return cls(texts["start_tokens"], texts["end_tokens"], texts["sep_tokens"], sizes)


def _settings(key: str, value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source}: {key} is not valid JSON ({error}), got {value!r}") from error
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{source}: {key} must be an object, got {value!r}")
    return dict(value or {})


def _pool_sizes(value: Any, place: str) -> PoolSizes:
    entries = value if isinstance(value, list) else []
    is_valid = all(
        isinstance(entry, list)
        and len(entry) == 3
        and all(type(size) is int and 1 <= size <= 1_000_000 for size in entry)
        for entry in entries
    )
    if not entries or not is_valid:
        raise ValueError(
            f"{place}: pool_sizes must be a list of [frames, rows, columns], each at least 1, got {value!r}"
        )
    return tuple((frames, rows, columns) for frames, rows, columns in entries)
