"""What the contract says of a method of another package that touches or makes what it should not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from stgridpool import Plan, Scorer
from stgridpool.contract.test_methods import test_it_leaves_the_tokens_that_it_plans as check_counts
from stgridpool.contract.test_methods import test_what_is_finite_stays_finite as check_values


@dataclass(frozen=True)
class SeedsAll(Scorer):
    """Keep random tokens, drawn from torch's global generator after seeding it again."""

    def score(self, tokens, evidence):
        torch.manual_seed(0)
        return torch.rand(len(tokens))


@dataclass(frozen=True)
class DividesByZero(Scorer):
    """Keep the first tokens, divided by one minus their mean."""

    def score(self, tokens, evidence):
        return -torch.arange(len(tokens))

    def plan(self, tokens, evidence):
        plan: Plan = super().plan(tokens, evidence)
        weights = 1 / (1 - tokens.features.float().mean(1))[plan.rows.sources]
        return replace(plan, rows=replace(plan.rows, weights=weights))


def test_random_numbers_of_others_may_not_be_seeded():
    check_values(SeedsAll())
    with pytest.raises(AssertionError, match="it draws from torch's global generator, or seeds it"):
        check_counts(SeedsAll())


def test_infinity_is_not_finite():
    check_counts(DividesByZero())
    with pytest.raises(AssertionError, match=r"equal tokens.*bfloat16"):
        check_values(DividesByZero())
