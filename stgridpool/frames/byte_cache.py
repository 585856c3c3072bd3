"""A cache of results that hold tensors, limited by bytes: plans of long videos are large, those of short ones many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial, update_wrapper
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

from torch import Tensor

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

MOST_BYTES = 1 << 28
"""Bytes of tensors that the results of one function may hold on all devices together: 256 MB.

Of 27x27 patches, `st_gridpool`'s plan for 64 frames takes 3.3 MB, and for 512 frames 26 MB: all lengths up to 64
frames fit, and ten of 512.
"""


class CachedByBytes(Generic[_Parameters, _Result]):
    """A function whose results are cached until their tensors take too much; the least recently used are evicted first.

    The last result stays, however large it is. Threads may call it; all get the same result.

    Args:
        function: The function.
        most_bytes: Bytes that the tensors of all results may take, on all devices together.
    """

    def __init__(self, function: Callable[_Parameters, _Result], most_bytes: int) -> None:
        update_wrapper(self, function)
        self._function, self._most_bytes = function, most_bytes
        self._results: OrderedDict[Hashable, tuple[_Result, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __call__(self, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        """Return the result for these arguments, which must be hashable."""
        key = (args, tuple(sorted(kwargs.items())))
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key][0]
        made = self._function(*args, **kwargs)
        with self._lock:
            if key not in self._results:
                self._results[key] = made, tensor_bytes(made)
                self._bytes += self._results[key][1]
            self._results.move_to_end(key)
            while len(self._results) > 1 and self._bytes > self._most_bytes:
                _, (_, size) = self._results.popitem(last=False)
                self._bytes -= size
            return self._results[key][0]

    def cache_clear(self) -> None:
        """Forget all results."""
        with self._lock:
            self._results.clear()
            self._bytes = 0


def cached_by_bytes(
    most_bytes: int = MOST_BYTES,
) -> Callable[[Callable[_Parameters, _Result]], CachedByBytes[_Parameters, _Result]]:
    """Return a decorator that makes a function `CachedByBytes`."""
    return partial(CachedByBytes, most_bytes=most_bytes)


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
