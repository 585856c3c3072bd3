"""Test what every method must satisfy: that it leaves as many tokens as it is asked for."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from stgridpool.chain import Chain
from stgridpool.compressor import Compressor, EncoderLayer
from stgridpool.contract.cases import clip, invented
from stgridpool.plan import Shape
from stgridpool.scorer import Budgeted
from stgridpool.two_halves import TwoHalves


def test_a_count_it_does_not_plan_follows_from_the_tokens(compressor: Compressor) -> None:
    """A method that plans no count leaves another number for other tokens and evidence.

    What is the same for every video follows from the sizes, and could have been planned.
    """
    options = {field.name for field in fields(compressor)} if is_dataclass(compressor) else set()
    if isinstance(compressor, Chain) or not options & {"retention", "tokens", "tokens_per_frame"}:
        pytest.skip("it has no budget of its own")
    if compressor.planned_count((9, 7, 7)) is not None or not _sets_a_budget(compressor):
        pytest.skip("it plans its count, or has no budget now")
    if any(isinstance(step.place, EncoderLayer) for step in compressor.steps()):
        pytest.skip(
            "its budget counts frames that entered the vision tower, of which the video decides how many are left"
        )
    counts = _counts_of_several_videos(compressor, (9, 7, 7))
    differ = len(counts) > 1 or len(_counts_of_several_videos(compressor, (33, 5, 5))) > 1  # scenes need more frames
    assert differ, f"it leaves {counts} of 441 tokens, whatever these are: plan that count"


def _counts_of_several_videos(compressor: Compressor, shape: Shape) -> set[int]:
    tokens, evidence = clip(shape), [invented(compressor, shape, seed=seed) for seed in range(4)]
    still = {need: value[:1].expand_as(value) for need, value in evidence[1].items()}
    videos = (tokens, tokens[:1].expand_as(tokens), tokens.abs().sqrt(), tokens.cumsum(0))
    return {
        len(compressor(video, about).plan)
        for video, about in zip(videos, (evidence[0], still, *evidence[2:]), strict=True)
    }


def _sets_a_budget(compressor: Compressor) -> bool:
    return any(getattr(compressor, name, None) is not None for name in ("retention", "tokens", "tokens_per_frame"))


BUDGETS: tuple[tuple[Shape, dict[str, float], int], ...] = (
    ((1, 1, 1), {"retention": 0.01}, 1),
    ((3, 5, 4), {"retention": 0.3}, 18),
    ((7, 1, 3), {"retention": 0.7}, 14),
    ((3, 5, 4), {"tokens": 1}, 1),
    ((9, 7, 7), {"tokens": 147}, 147),
    ((2, 4, 4), {"tokens": 1000}, 32),
    ((9, 7, 7), {"tokens_per_frame": 3}, 27),
)
"""Lattices, budgets, and the tokens to leave."""


def test_it_meets_budgets_or_says_why_not(compressor: Compressor) -> None:
    """Fractions are rounded down, but to no less than 1 token; presets whose counts depend on the tokens may miss.

    Presets of released codes may round otherwise, or have no budget. No other method may say why not for every budget
    that takes some of the tokens.
    """
    options = {field.name for field in fields(compressor)} if is_dataclass(compressor) else set()
    if not options >= {"retention", "tokens", "tokens_per_frame"}:
        pytest.skip("it has no budget of its own")
    alternatives = compressor.alternatives if isinstance(compressor, Budgeted) else ()
    unset: dict[str, Any] = dict.fromkeys(("retention", "tokens", "tokens_per_frame", *alternatives))
    whole = {"inner_retention": 1} if isinstance(compressor, TwoHalves) else {}
    if getattr(compressor, "preset", "corrected") != "corrected" and not _takes(compressor, unset | {"retention": 0.5}):
        pytest.skip("the released code has no budget")
    num_met = 0
    for shape, budget, count in BUDGETS:
        try:
            method = replace(compressor, **(unset | budget | whole))
            planned = method.planned_count(shape)
            left = len(method(clip(shape), invented(method, shape)).plan)
        except ValueError as error:
            if "budget" not in str(error):
                raise
            continue
        assert planned in (left, None), (shape, budget)
        rounds = isinstance(method, Budgeted) and "retention" in budget and method.budget.rounding != "down"
        assert left in (count, count + rounds) or planned is None, (shape, budget)
        num_met += left == count < math.prod(shape)
    assert num_met, "it met no budget"


def _takes(compressor: Compressor, options: dict[str, Any]) -> bool:
    try:
        replace(compressor, **options)
    except ValueError:
        return False
    return True
