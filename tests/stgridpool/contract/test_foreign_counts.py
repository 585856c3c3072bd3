"""What the contract says of a method of another package that miscounts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from stgridpool import Plan, Scorer
from stgridpool.contract.test_budgets import (
    test_a_count_it_does_not_plan_follows_from_the_tokens as check_that_it_plans,
)
from stgridpool.contract.test_budgets import test_it_meets_budgets_or_says_why_not as check_budgets
from stgridpool.evidence import AttentionReceived


@dataclass(frozen=True)
class RoundsUp(Scorer):
    """Keep the first tokens, rounded up, and plan no count."""

    def score(self, tokens, evidence):
        return -torch.arange(len(tokens))

    def planned_count(self, shape, total=None):
        return None

    def plan(self, tokens, evidence):
        exact = (self.retention or 0) * len(tokens)
        count = self.count(tokens) + (self.retention is not None and exact % 1 > 0)
        return Plan.keep(torch.arange(min(count, len(tokens))), len(tokens))


@dataclass(frozen=True)
class PlansThat(RoundsUp):
    """The same with its budget planned."""

    def planned_count(self, shape, total=None):
        return self.budget.count(shape, total)


@dataclass(frozen=True)
class UpToAShare(RoundsUp):
    """Keep the tokens that hold most of the attention received, whatever the tokens are."""

    @property
    def needs(self):
        return frozenset({AttentionReceived()})

    def plan(self, tokens, evidence):
        received = evidence[AttentionReceived()].sort(descending=True)
        count = int((received.values.cumsum(0) < self.retention * received.values.sum()).sum()) + 1
        return Plan.keep(received.indices[:count].sort().values, len(tokens))


def test_a_count_may_follow_from_evidence_alone():
    check_that_it_plans(UpToAShare())


def test_a_miscount_cannot_hide_behind_no_plan():
    """Rounded up, 0.25 of 441 are 111, for every video; where it meets a budget by chance, it may plan none."""
    check_budgets(RoundsUp())
    with pytest.raises(AssertionError, match=r"it leaves \{111\} of 441 tokens, whatever these are: plan that count"):
        check_that_it_plans(RoundsUp())
    with pytest.raises(AssertionError):
        check_budgets(PlansThat())
