"""The search for the threshold that meets a budget."""

import pytest
import torch

from stgridpool.algorithms.threshold_search import counted_once, highest_threshold

LOW, HIGH = torch.tensor(-2.0), torch.tensor(2.0)


@pytest.mark.parametrize("budget", range(1, 12))
def test_a_step_at_every_similarity(budget):
    similarities = torch.linspace(-0.9, 0.9, 11)  # one token less for each that the threshold lets pass
    found = highest_threshold(lambda threshold: 12 - (similarities >= threshold).sum(), budget, LOW, HIGH)
    assert 12 - int((similarities >= found).sum()) == budget
    assert float(found) == pytest.approx(float(similarities[budget - 1]), abs=1e-5)


def test_ties_never_exceed_the_budget():
    found = highest_threshold(lambda threshold: torch.where(threshold > 0.25, 100, 4), 50, LOW, HIGH)
    assert float(found) == pytest.approx(0.25, abs=1e-5)
    assert float(found) <= 0.25


def test_counts_that_are_not_monotone():
    def count(threshold):
        return (threshold * 50).long().abs() + 10 * (torch.sin(threshold * 40) > 0)

    found = highest_threshold(count, 30, torch.tensor(0.0), HIGH)
    assert int(count(found)) <= 30


def test_what_passes_is_counted_once():
    similarities, calls = torch.tensor([-0.5, 0.25, 0.25, 0.75]), []

    def count(threshold):
        calls.append(float(threshold))
        return 5 - (similarities >= threshold).sum()

    counted = counted_once(count, lambda threshold: (similarities >= threshold).sum())
    assert highest_threshold(counted, 4, LOW, HIGH) == highest_threshold(count, 4, LOW, HIGH)
    assert calls[:3] == [0.0, 1.0, 0.5]  # 3, none and 1 pass
    assert len(calls) == 3 + 20
