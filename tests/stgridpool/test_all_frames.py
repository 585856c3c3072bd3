"""Budgets after steps in the vision tower: counts by hand."""

import pytest
import torch

from stgridpool import VideoTokens, build_compressor, compress_tokens
from stgridpool.all_frames import AllFrames
from stgridpool.compressor import PATCHES, Step, compress_steps

STILL = torch.ones(10, 2, 3, 4)
"""Ten equal frames of six tokens."""


def left_by(name, **options):
    """The frames that are left in the tower, and the tokens after all steps before the language model."""
    chain = build_compressor(f"earlytom_frames+{name}", earlytom_frames={"mixing": "mean"}, **options)
    frames = compress_tokens(chain.methods[0], VideoTokens.of(STILL), {})[0].shape[0]
    return frames, len(compress_tokens(chain, VideoTokens.of(STILL), {})[0])


@pytest.mark.parametrize(
    ("budget", "count"),
    [({"retention": 0.2}, 12), ({"tokens": 7}, 7), ({"tokens_per_frame": 1}, 10), ({"retention": 1.0}, None)],
)
@pytest.mark.parametrize("name", ["norm_topk", "tome", "stride"])
def test_it_counts_the_frames_that_entered(name, budget, count):
    """Of 60 tokens; no more than the frames left hold."""
    frames, left = left_by(name, **{name: budget})
    assert frames < 10
    assert left == (6 * frames if count is None else count)


def test_every_budget_counts_them():
    """0.9 of 60 is 54, more than the frames left hold, and a third of it 18 of these."""
    assert left_by("norm_topk+random", norm_topk={"retention": 0.9}, random={"retention": 1 / 3})[1] == 18


def test_frames_that_are_joined_in_between_are_counted_as_if_all_had_left():
    """Half of 4 frames of 2x3 tokens is 12, two of each are 8; runs of 4 make 3 frames, a quarter of which is 4."""
    pooled = {"adaptive_pool": {"frames": 4, "size": [2, 3]}}
    assert left_by("adaptive_pool+norm_topk", **pooled, norm_topk={"retention": 0.5})[1] == 12
    assert left_by("adaptive_pool+norm_topk", **pooled, norm_topk={"tokens_per_frame": 2})[1] == 8
    options = {"temporal_average": {"group": 4}, "norm_topk": {"retention": 0.25}}
    assert left_by("temporal_average+norm_topk", **options)[1] == 4


@pytest.mark.parametrize(("name", "options"), [("evs", {"pruning_rate": 0.5}), ("dycoke_ttm", {"prune": 0.5})])
def test_a_rate_leaves_the_budget_to_the_next_method(name, options):
    """Of ten frames of 6, evs leaves 30 and dycoke_ttm 3 * 6 + 7 * 3 = 39; a tenth is 3 either way."""
    assert left_by(f"{name}+norm_topk", **{name: options}, norm_topk={"retention": 0.1})[1] == 3


def test_a_method_called_by_another_counts_them():
    assert left_by("recycle", recycle={"options": {"retention": 0.2}})[1] == 12


def test_earlytom_counts_what_all_frames_come_to():
    """Blocks of 2 frames make 5 of ten, 30 tokens, of which a tenth are 3; the frames left are 3."""
    chain = build_compressor("earlytom", retention=0.1, inner_retention=1.0, mixing="mean")
    tower = chain.steps()[:-1]
    steps = (*tower, Step(build_compressor("temporal_average", group=2), PATCHES), chain.steps()[-1])
    given = {need: torch.rand(60) for need in chain.needs if need.per_token}
    assert len(compress_steps(steps, VideoTokens.of(STILL), given)[0]) == 3


def test_it_is_planned_and_computed_as_its_method():
    method = AllFrames(build_compressor("temporal_average", retention=0.5))
    assert method.planned_shape((8, 2, 2)) == (4, 2, 2)
    assert method.planned_count((8, 2, 2)) == 16
    longest = AllFrames(build_compressor("max"))
    features, shape = torch.randn(16, 3), (1, 4, 4)
    plan = longest.method.plan(VideoTokens(features, shape), {})
    found = longest.values(features, shape, plan)
    assert torch.equal(found, features.view(2, 2, 2, 2, 3).amax((1, 3)).view(4, 3))


def test_budgets_one_after_the_other():
    """A fifth of 60, and a half of that; windows of 2x3 make one token of each frame left in between."""
    assert left_by("norm_topk+stride", norm_topk={"retention": 0.2}, stride={"retention": 0.5})[1] == 6
    frames, left = left_by("average+norm_topk", average={"kernel_size": [2, 3]}, norm_topk={"retention": 0.2})
    assert (frames > 2, left) == (True, 2)  # of ten


def test_what_needs_no_frames_stays_as_it_is():
    """Without a budget, inside the language model, and before which nothing acts in the tower."""
    assert left_by("temporal_average", temporal_average={"group": 2})[1] % 6 == 0
    inside = build_compressor("earlytom_frames+fastv").steps()[-1].compressor
    assert not isinstance(inside, AllFrames)
    assert not any(isinstance(step.compressor, AllFrames) for step in build_compressor("average+tome+fastv").steps())
    assert not any(isinstance(step.compressor, AllFrames) for step in build_compressor("earlytom").steps())
