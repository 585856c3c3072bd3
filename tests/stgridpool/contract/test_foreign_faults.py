"""What the contract says of methods of other packages that are faulty where it is easily missed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from stgridpool import Scorer
from stgridpool.contract.test_methods import test_it_acts_on_pruned_videos_or_says_that_it_cannot as check_pruned
from stgridpool.contract.test_methods import test_its_repr_is_its_record as check_record
from stgridpool.contract.test_methods import test_what_is_finite_stays_finite as check_finite


@dataclass(frozen=True)
class Norms(Scorer):
    """Keep the longest tokens."""

    def score(self, tokens, evidence):
        return tokens.features.float().norm(dim=1)


@dataclass(frozen=True)
class ScalesPruned(Norms):
    """Change the tokens of pruned videos."""

    def score(self, tokens, evidence):
        return (tokens.features if tokens.cell is None else tokens.features.mul_(2)).float().norm(dim=1)


@dataclass(frozen=True)
class Directions(Norms):
    """Divide by the length of a token, which may be 0."""

    def score(self, tokens, evidence):
        return (tokens.features / tokens.features.norm(dim=1, keepdim=True)).float().sum(dim=1)


@dataclass(frozen=True)
class HidesAnOption(Norms):
    """Leave an option out of the record."""

    power: float = field(default=1.0, repr=False)


@dataclass(frozen=True)
class IgnoresAnOption(Norms):
    """Be equal whatever an option is."""

    power: float = field(default=1.0, compare=False)


def test_a_method_without_fault_passes():
    for check in (check_pruned, check_finite, check_record):
        check(Norms())


@pytest.mark.parametrize(
    ("check", "method", "message"),
    [
        (check_pruned, ScalesPruned, "it changed its input"),
        (check_finite, Directions, r"it scores zeros in torch\.bfloat16 as NaN"),
        (check_record, HidesAnOption, r"leaves out \['power'\]"),
        (check_record, IgnoresAnOption, r"leaves out \['power'\]"),
    ],
)
def test_a_fault_is_found(check, method, message):
    with pytest.raises(AssertionError, match=message):
        check(method())
