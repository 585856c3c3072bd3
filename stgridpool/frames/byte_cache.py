"""A cache of results that hold tensors, limited by bytes: plans of long videos are large, those of short ones many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

MOST_BYTES = 1 << 28
"""Bytes of tensors that the results of one function may hold on all devices together: 256 MB.

Of 27x27 patches, `st_gridpool`'s plan for 64 frames takes 3.3 MB, and for 512 frames 26 MB: all lengths up to 64
frames fit, and ten of 512.
"""


def cached_by_bytes(
    most_bytes: int = MOST_BYTES,
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Cache a function's results until their tensors take too much; the least recently used are evicted first.

    The last result stays, however large it is. Threads may call the function; all get the same result.

    Args:
        most_bytes: Bytes that the tensors of all results may take, on all devices together.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        results: OrderedDict[Hashable, tuple[_Result, int]] = OrderedDict()
        lock = Lock()

        @wraps(function)
        def cached(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            key = (args, tuple(sorted(kwargs.items())))
            with lock:
                if key in results:
                    results.move_to_end(key)
                    return results[key][0]
            made = function(*args, **kwargs)
            with lock:
                found, _ = results.setdefault(key, (made, tensor_bytes(made)))
                results.move_to_end(key)
                while len(results) > 1 and sum(size for _, size in results.values()) > most_bytes:
                    results.popitem(last=False)
            return found

        return cached

    return decorate


def tensor_bytes(value: Any) -> int:
    """Return the bytes of the tensors in a value: a tensor, or a tuple, mapping or dataclass of such."""
    return sum(
        {storage.data_ptr(): storage.nbytes() for storage in map(Tensor.untyped_storage, _tensors(value))}.values()
    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, tuple):
        parts = list(value)
    else:
        is_record = is_dataclass(value) and not isinstance(value, type)
        parts = [getattr(value, field.name) for field in fields(value)] if is_record else []
    return [tensor for part in parts for tensor in _tensors(part)]
