"""LLaVA-Scissor: golden numbers of the original, budgets by hand, edges."""

import pytest
import torch

from golden_methods import CASES, check_features, golden_method, runs_of_case
from stgridpool import LLaVAScissor, VideoTokens
from stgridpool.compressors import llava_scissor


def test_equals_the_original(golden):
    """All 40 cases, from 12 to 1376 tokens, in the original's order."""
    variants, tensors = golden_method(golden, "llava_scissor")
    runs = [run for case in CASES for run in runs_of_case(golden, variants, case)]
    assert len(runs) == 40
    for name, variant, tokens, _ in runs:
        out, plan = LLaVAScissor(threshold=variant["tau"], preset="released")(tokens)
        assert len(out) == variant["n_tokens"]
        own = plan.rows.sources < plan.num_sources
        goes_to = torch.zeros(plan.num_sources, dtype=torch.int64)
        goes_to[plan.rows.sources[own]] = plan.rows.row_of_entry()[own]
        assert torch.equal(goes_to, tensors[f"{name}.assign"].long()), name
        check_features(out, tensors, name, variant["has_features"])


def test_components_of_frames_then_of_the_video_by_hand():
    """Degrees of two frames; tokens up to 25.8 degrees apart are neighbours. 8 tokens become 4."""
    radians = torch.tensor([0.0, 10.0, 90.0, 100.0, 5.0, 95.0, 180.0, 270.0]).deg2rad()
    unit = torch.stack([radians.cos(), radians.sin()], 1)
    out, plan = LLaVAScissor(threshold=0.9)(unit.view(2, 2, 2, 2))
    assert plan.anchor.tolist() == [0, 2, 6, 7]
    first, second = ((unit[[one, one + 1]].mean(0) + unit[one // 2 + 4]) / 2 for one in (0, 2))  # a frame's mean is one
    expected = [(first + unit[[0, 1, 4]].sum(0)) / 4, (second + unit[[2, 3, 5]].sum(0)) / 4, unit[6], unit[7]]
    torch.testing.assert_close(out, torch.stack(expected))
    torch.testing.assert_close(plan.apply(torch.ones(8, 1)), torch.ones(4, 1))


def test_tokens_that_are_least_like_their_component_make_up_a_budget():
    """0, 1 and 2 are a chain of equal cosines, 0.8, so there are 2 or 4 components; 0 and 2 are farthest from it."""
    tokens = torch.tensor([[0.8, 0.6], [1.0, 0.0], [0.8, -0.6], [-1.0, 0.0]])
    out, plan = LLaVAScissor(tokens=3)(tokens.view(1, 2, 2, 2))
    assert plan.anchor.tolist() == [0, 1, 3]
    component = (tokens[:3].mean(0) + tokens[1] + tokens[2]) / 3
    torch.testing.assert_close(out, torch.stack([tokens[0], component, tokens[3]]))
    assert LLaVAScissor(tokens=2)(tokens.view(1, 2, 2, 2)).plan.anchor.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("count", "places"), [(1, [4]), (3, [0, 3, 5]), (4, [0, 1, 3, 5]), (5, [0, 1, 2, 3, 5]), (6, [0, 1, 2, 3, 4, 5])]
)
def test_the_highest_threshold_is_taken(count, places):
    """Degrees of one frame: components part at 99, 40, 20, 15 and 6 degrees; each stands where most neighbours are."""
    radians = torch.tensor([0.0, 20.0, 60.0, 75.0, 81.0, 180.0]).deg2rad()
    tokens = torch.stack([radians.cos(), radians.sin()], 1).view(1, 2, 3, 2)
    method = LLaVAScissor(tokens=count)
    assert method(tokens).plan.anchor.tolist() == places
    assert method.planned_count((1, 2, 3)) == count


@pytest.mark.parametrize(("always", "most"), [(0, 20 * 19 // 2), (1 << 24, 10 * 20**2)])
def test_the_search_makes_no_more_cosines_than_it_may(monkeypatch, always, most):
    """Of 20 unlike tokens 12 are to be left, so most thresholds that are tried leave more means than that."""
    made = []
    cosines = llava_scissor._cosines
    monkeypatch.setattr(llava_scissor, "_ALWAYS", always)
    monkeypatch.setattr(
        llava_scissor, "_cosines", lambda features, sets: made.append(len(features)) or cosines(features, sets)
    )
    tokens = torch.randn(2, 2, 5, 16, generator=torch.Generator().manual_seed(0))
    assert len(LLaVAScissor(tokens=12)(tokens).plan) == 12
    in_search = made[1:-1]  # the first are those of frames, the last those of the threshold found
    assert in_search
    assert sum(count**2 for count in in_search) <= most


def test_equal_tokens_and_frames_of_different_sizes():
    assert LLaVAScissor(tokens=3)(torch.ones(2, 2, 2, 4)).plan.anchor.tolist() == [0, 1, 2]
    tokens = VideoTokens(torch.eye(5), (3, 2, 2), torch.tensor([3, 8, 9, 10, 11]))
    assert LLaVAScissor(tokens=5).plan(tokens, {}).anchor.tolist() == [0, 1, 2, 3, 4]
    assert LLaVAScissor(threshold=0.5).plan(tokens, {}).anchor.tolist() == [0, 1, 2, 3, 4]


def test_defaults_and_bad_options():
    assert LLaVAScissor() == LLaVAScissor(retention=0.25)
    assert LLaVAScissor(threshold=0.9).planned_count((2, 4, 4)) is None
    assert LLaVAScissor(preset="released").threshold == 0.9
    with pytest.raises(ValueError, match=r"'released' takes threshold in place of a budget, got \{'tokens': 3\}"):
        LLaVAScissor(preset="released", tokens=3)
    with pytest.raises(ValueError, match="threshold must be a number from -1 to 1, got 90"):
        LLaVAScissor(threshold=90)
    with pytest.raises(ValueError, match=r"got \{'tokens': 3, 'threshold'"):
        LLaVAScissor(threshold=0.9, tokens=3)
