"""The rows of the pooling benchmark: each method on random tokens of one size and dtype."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from benchmarking.measuring import best_ms, device_name, peak_bytes, reset_peak, synchronise
from benchmarking.orders import order_of
from benchmarking.unfolding import Pooled
from stgridpool import Compressed, build_compressor

Row = dict[str, object]

READS = {
    **dict.fromkeys(("average", "norm_topk", "evs", "dycoke_ttm", "framefusion", "framefusion_merge", "st_simdiff"), 1),
    "nsp": 2,
    "vidcom2": 3,
}
"""How often some methods must read all features, where each read needs the one before: VidCom2 the variance of channels
to choose half of them, then the means of tokens cut to those, then the distances from the means."""


class Case(NamedTuple):
    """One method on one kind of tokens."""

    name: str
    compressor: Callable[[torch.Tensor], Compressed | Pooled]


class First(NamedTuple):
    """The first call of a method."""

    ms: float
    moved: int  # bytes of the input, read once, and of the output, written once
    extra: int | None  # bytes held at most beyond both


@dataclass(frozen=True)
class Timing:
    """How methods are timed.

    Attributes:
        rounds: Timed calls of each method.
        clock: Counts seconds, see `best_ms`.
        patience_s: A first call that takes longer is the only one.
    """

    rounds: int
    clock: Callable[[], float] = time.perf_counter
    patience_s: float = 2.0


@torch.inference_mode()
def time_methods(cases: list[Case], tokens: torch.Tensor, dtype: str, timing: Timing) -> list[Row]:
    """Time each case on `tokens` (T, H, W, D); those that are not slow take turns, and the best call counts."""
    size = tokens.numel() * tokens.element_size()
    firsts = {case.name: _first_call(case, tokens, timing.clock) for case in cases}
    fast = [case for case in cases if firsts[case.name].ms <= 1000 * timing.patience_s]
    firsts |= {case.name: _first_call(case, tokens, timing.clock) for case in fast}  # now with what is kept in caches
    target = torch.empty_like(tokens)
    timed = {case.name: case.compressor for case in fast}
    timed.setdefault("average", build_compressor("average"))
    calls = [partial(target.copy_, tokens), *(partial(call, tokens) for call in timed.values())]
    copy_ms, *found = best_ms(calls, timing.rounds, tokens.device, timing.clock)
    best = dict(zip(timed, found, strict=True))
    rows: list[Row] = []
    for case in cases:
        first = firsts[case.name]
        ms, order = best.get(case.name, first.ms), order_of(case.name)
        rows.append(
            {
                "method": case.name,
                "order": order.formula if order else None,
                "compares": order.compares if order else None,
                "grid": f"{tokens.shape[1]}x{tokens.shape[2]}",
                "device": device_name(tokens.device),
                "dtype": dtype,
                "ms": round(ms, 3),
                "calls": timing.rounds if case.name in best else 1,
                "reads": READS.get(case.name),
                "ratio_to_average": round(ms / best["average"], 3),
                "bytes_moved": first.moved,
                "copy_bandwidth_share": round((first.moved / ms) / (2 * size / copy_ms), 3),
                "extra_memory_share": None if first.extra is None else round(first.extra / size, 3),
            }
        )
    return rows


def _first_call(case: Case, tokens: torch.Tensor, clock: Callable[[], float]) -> First:
    before = reset_peak(tokens.device)
    started = clock()
    made = case.compressor(tokens).tokens
    synchronise(tokens.device)
    ms, peak = 1000 * (clock() - started), peak_bytes(tokens.device)
    out = 0 if _is_view(made, tokens) else made.numel() * made.element_size()
    moved = out and tokens.numel() * tokens.element_size() + out
    return First(ms, moved, None if before is None or peak is None else max(0, peak - before - out))


def extra_memory(call: Callable[[], Compressed | Pooled], tokens: torch.Tensor) -> int | None:
    """Peak bytes that `call` holds beyond its input `tokens` and its output; None where it cannot be read."""
    return _first_call(Case("", lambda _: call()), tokens, time.perf_counter).extra


def _is_view(output: torch.Tensor, tokens: torch.Tensor) -> bool:
    return output.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr()
