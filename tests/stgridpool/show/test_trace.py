"""Traces: the plans of a method from patches to tokens, and numbers that are brought back to the patches."""

import pytest
import torch

from stgridpool import Plan
from stgridpool.show.trace import HeatMap, Stage, Trace, entries, on_patches, owners


def test_stages_are_composed_and_remember_their_last_lattice(make_rows):
    """Two frames of 1x4 patches: windows of two make a 2x1x2 lattice, of which tokens 0 and 3 merge, and 2 stays."""
    windows = make_rows(*([(2 * i, 0.5), (2 * i + 1, 0.5)] for i in range(4)))
    pooled = Plan(windows, 8, torch.tensor([0, 2, 4, 6]), shape=(2, 1, 2))
    stage = Stage.start((2, 1, 4)).then("pooled", pooled)
    assert (stage.lattice, len(stage.chosen)) == ((2, 1, 2), 4)
    merged = stage.then("merged", Plan.merge(torch.tensor([0, -1, 1, 0]), torch.tensor([0, 2])))
    assert merged.lattice == (2, 1, 2)
    assert merged.chosen.sizes().tolist() == [2, 1]
    assert merged.plan.anchor.tolist() == [0, 4]
    rows = entries(merged.plan)
    assert rows.sources.tolist() == [0, 1, 6, 7, 4, 5]
    assert rows.weights.tolist() == [0.25] * 4 + [0.5] * 2


def test_entries_join_what_a_row_names_twice_and_leave_out_zeros(make_rows):
    rows = entries(Plan(make_rows([(1, 0.25), (0, 0.5), (1, 0.25)], [(0, 0.0)]), 2, torch.tensor([0, 0])))
    assert (rows.sources.tolist(), rows.weights.tolist()) == ([0, 1], [0.5, 0.5])
    assert rows.offsets.tolist() == [0, 2, 2]


def test_numbers_of_tokens_are_brought_to_their_patches(make_rows):
    """Patch 1 is a quarter of token 0 and three quarters of token 1; patch 3 is lost."""
    plan = Plan(make_rows([(0, 1.0), (1, 0.25)], [(1, 0.75), (2, 1.0)]), 4, torch.tensor([0, 2]))
    values = on_patches(plan, torch.tensor([4.0, 8.0]))
    assert values[:3].tolist() == [4, 7, 8]
    assert values[3].isnan()
    assert owners(plan).tolist() == [0, 1, 1, -1]


def test_of_two_equal_owners_the_first_is_taken(make_rows):
    plan = Plan(make_rows([(0, 0.5)], [(0, 0.5)]), 1, torch.tensor([0, 0]))
    assert owners(plan).tolist() == [0]


def test_a_trace_refuses_plans_and_heat_maps_of_other_videos():
    with pytest.raises(ValueError, match=r"the plan of nsp is for 4 patches, but \(1, 2, 3\) are 6"):
        Trace.of("nsp", Plan.keep(torch.tensor([0]), 4), (1, 2, 3))
    with pytest.raises(ValueError, match=r"'norm' of nsp is for 5 patches, but \(1, 2, 3\) are 6"):
        Trace.of("nsp", Plan.keep(torch.tensor([0]), 6), (1, 2, 3), [HeatMap("norm", torch.zeros(5))])
