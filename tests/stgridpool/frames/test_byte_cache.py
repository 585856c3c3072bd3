"""Results are kept until their tensors take too many bytes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest
import torch

from stgridpool.frames.byte_cache import cached_by_bytes, tensor_bytes


@dataclass(frozen=True, eq=False)
class Pair:
    name: str
    tensors: tuple


@pytest.fixture
def made():
    return []


def counting(made, most_bytes):
    @cached_by_bytes(most_bytes)
    def make(size):
        made.append(size)
        return Pair("x", (torch.zeros(size, dtype=torch.uint8),))

    return make


def test_the_least_recently_used_are_evicted_first(made):
    make = counting(made, 100)
    first = make(40)
    make(50)
    assert make(40) is first  # 90 bytes
    make(30)  # 120 bytes: the 50 go
    assert made == [40, 50, 30]
    assert make(40) is first
    assert made == [40, 50, 30]
    make(50)  # 120 bytes: the 30 go
    make(40)
    assert made == [40, 50, 30, 50]
    make(30)
    assert made == [40, 50, 30, 50, 30]
    make.cache_clear()
    assert make(30) is not first
    assert made == [40, 50, 30, 50, 30, 30]


def test_the_last_result_stays_however_large_it_is(made):
    make = counting(made, 100)
    make(10)
    assert make(500) is make(500)
    make(10)
    assert made == [10, 500, 10]


def test_bytes_are_those_of_memory_that_is_held():
    tensor = torch.zeros(5, 4)
    value = Pair("x", (tensor, tensor[1:], {"a": torch.zeros(3, dtype=torch.int64)}))
    assert tensor_bytes(value) == 5 * 4 * 4 + 3 * 8
    assert tensor_bytes(("text", 3, None, Pair)) == 0


def test_threads_that_make_the_same_at_once_get_one_result(made):
    both = Barrier(2, timeout=600)

    @cached_by_bytes(100)
    def make(size):
        both.wait()
        return torch.zeros(size)

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(make, [3, 3])
    assert one is other
