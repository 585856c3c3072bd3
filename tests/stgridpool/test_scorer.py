"""Pruners: a base class that meets budgets exactly, and what an author has to write."""

import math

import pytest
import torch

from stgridpool import Plan, Step, VideoTokens, build_compressor, compress_tokens
from stgridpool.compressor import TOKENS
from stgridpool.compressors import COMPRESSORS
from stgridpool.contract.cases import invented
from stgridpool.scorer import FrameBudgeted, Scoped, highest, highest_per_group

NORM_TOP_K = '''
"""Pruning by norm."""

from dataclasses import dataclass

from torch import Tensor

from stgridpool import Evidence, Scorer, VideoTokens


@dataclass(frozen=True)
class NormTopK(Scorer):
    """Keep the tokens of largest norm of every frame."""

    def score(self, tokens: VideoTokens, evidence: Evidence) -> Tensor:
        """Return the norm of every token."""
        return tokens.features.norm(dim=1)
'''


@pytest.fixture(scope="module")
def norm_top_k():
    """The method of the file above, which is all that its author writes."""
    assert len(NORM_TOP_K.strip().splitlines()) <= 25
    module: dict = {"__name__": "norm_top_k"}
    exec(compile(NORM_TOP_K, "norm_top_k.py", "exec"), module)  # noqa: S102
    return module["NormTopK"]


def scores_of(*values):
    """One channel a token, so that its norm is its score."""
    return VideoTokens(torch.tensor(values)[:, None], (1, 1, len(values)))


def test_a_method_of_the_simplest_kind(norm_top_k):
    maps = torch.randn(5, 4, 3, 7)
    out, plan = norm_top_k(tokens_per_frame=3)(maps)
    norms = maps.flatten(1, 2).norm(dim=2)  # (5, 12)
    expected = norms.topk(3).indices.sort(dim=1).values + 12 * torch.arange(5)[:, None]
    assert plan.kept().tolist() == expected.flatten().tolist()
    assert torch.equal(out, maps.flatten(0, 2)[expected.flatten()])
    assert norm_top_k().planned_count((5, 4, 3)) == 15  # a quarter, where no budget is given
    assert norm_top_k().steps() == (Step(norm_top_k(), TOKENS),)
    assert not norm_top_k().query_aware


def test_it_is_built_by_name_and_joined(norm_top_k, monkeypatch):
    monkeypatch.setitem(COMPRESSORS, "norm_top_k", norm_top_k)
    chain = build_compressor("st_gridpool+norm_top_k", norm_top_k={"retention": 0.3, "scope": "video"})
    assert chain.planned_count((64, 27, 27)) == 64 * 169 * 3 // 10
    assert len(chain(torch.randn(8, 6, 6, 3)).plan) == 8 * 9 * 3 // 10


def test_the_scope_is_each_frame_or_the_video(norm_top_k):
    maps = torch.tensor([[9.0, 8.0, 7.0, 6.0], [1.0, 5.0, 2.0, 3.0]]).view(2, 2, 2, 1)
    kept = {scope: norm_top_k(tokens=4, scope=scope)(maps).plan.kept().tolist() for scope in ("frame", "video")}
    assert kept == {"frame": [0, 1, 5, 7], "video": [0, 1, 2, 3]}
    # Of three tokens the first frame gets the odd one.
    assert norm_top_k(tokens=3)(maps).plan.kept().tolist() == [0, 1, 5]


@pytest.mark.parametrize("scope", ["frame", "video"])
def test_of_equal_scores_the_first_are_kept(norm_top_k, scope):
    assert norm_top_k(tokens_per_frame=2, scope=scope)(torch.ones(1, 2, 3, 4)).plan.kept().tolist() == [0, 1]
    maps = torch.tensor([2.0, 5.0, 5.0, 1.0, 5.0, 2.0]).view(1, 2, 3, 1)
    assert norm_top_k(tokens=2, scope=scope)(maps).plan.kept().tolist() == [1, 2]
    assert norm_top_k(tokens=4, scope=scope)(maps).plan.kept().tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("scope", ["frame", "video"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 4), (7, 2, 2), (10, 1, 3), (2, 14, 14)], ids=str)
def test_budgets_are_met_exactly(norm_top_k, shape, scope):
    maps = torch.randn(*shape, 4)
    total = math.prod(shape)
    for percent in range(1, 101):
        method = norm_top_k(retention=percent / 100, scope=scope)
        plan = method(maps).plan
        assert len(plan) == method.planned_count(shape) == max(1, percent * total // 100)
        kept = plan.kept()
        assert kept.tolist() == plan.anchor.tolist() == sorted(set(kept.tolist()))
        if scope == "frame":
            counts = torch.bincount(kept // (total // shape[0]), minlength=shape[0])
            assert counts.max() - counts.min() <= 1
    for count in range(1, total + 3, 1 + total // 50):
        assert len(norm_top_k(tokens=count, scope=scope)(maps).plan) == min(count, total)
        per_frame = norm_top_k(tokens_per_frame=count, scope=scope)
        assert len(per_frame(maps).plan) == per_frame.planned_count(shape) == min(count * shape[0], total)


@pytest.mark.parametrize("scope", ["frame", "video"])
def test_ragged_tokens(norm_top_k, scope):
    """Frames of 5, 1, 0 and 3 tokens: what a small frame cannot take goes to the others."""
    cell = torch.tensor([0, 1, 2, 3, 5, 7, 18, 19, 22])
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        tokens = VideoTokens(torch.randn(9, 3, generator=generator), (4, 2, 3), cell)
        for count in range(1, 10):
            method = norm_top_k(tokens=count, scope=scope)
            plan = method.plan(tokens, {})
            assert len(plan) == method.planned_count((4, 2, 3), 9) == count
            assert plan.num_sources == 9
            left = tokens.through(plan)
            assert left.cell.tolist() == cell[plan.kept()].tolist()
            counts = torch.bincount(left.frames(), minlength=4).tolist()
            if scope == "frame" and count >= 3:
                assert counts[1:3] == [1, 0]
                assert counts[3] == min(3, (count - 1) // 2)
    assert norm_top_k(retention=0.5)(torch.ones(1, 1, 9, 2)).plan.kept().tolist() == [0, 1, 2, 3]


def unlike_frame():
    """Four frames of 4x4 tokens, of which frame 2 is unlike the others in the channels that vary least."""
    maps = torch.randn(4, 4, 4, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.01] * 4 + [9.0] * 4)
    maps[..., :4] += 1
    maps[2, :, :, :2] -= 2
    return maps


def test_frames_that_are_unlike_the_others_get_more(norm_top_k):
    """Shares are 3, 3, 7 and 3 sixteenths."""
    maps = unlike_frame()
    plan = norm_top_k(tokens=16, frame_budget="uniqueness")(maps).plan
    assert torch.bincount(plan.kept() // 16).tolist() == [3, 3, 7, 3]
    # Three quarters of all: frame 2 would get 21 of its 16 tokens, and the others share what it cannot take.
    plan = norm_top_k(tokens=48, frame_budget="uniqueness")(maps).plan
    assert torch.bincount(plan.kept() // 16).tolist() == [11, 11, 16, 10]
    for count in range(1, 65, 7):
        assert len(norm_top_k(tokens=count, frame_budget="uniqueness")(maps).plan) == count
    assert norm_top_k(retention=1.0, frame_budget="uniqueness")(maps).plan.kept().tolist() == list(range(64))


SHARED = [name for name, kind in COMPRESSORS.items() if issubclass(kind, FrameBudgeted)]


@pytest.mark.parametrize("name", SHARED)
def test_every_method_that_shares_among_frames_gives_unlike_ones_more(name):
    """As above, whatever the method does in a frame."""
    scope = {"scope": "frame"} if issubclass(COMPRESSORS[name], Scoped) else {}
    for frame_budget, shares in (("uniform", [4, 4, 4, 4]), ("uniqueness", [3, 3, 7, 3])):
        method = build_compressor(name, tokens=16, frame_budget=frame_budget, **scope)
        plan = compress_tokens(method, VideoTokens.of(unlike_frame()), invented(method, (4, 4, 4)))[1]
        assert torch.bincount(plan.anchor // 16, minlength=4).tolist() == shares


def test_methods_that_share_among_frames():
    assert {"random", "norm_topk", "visionzip", "tome", "divprune", "cdpruner", "prumerge", "fastv"} <= set(SHARED)
    with pytest.raises(ValueError, match=r"frame_budget='uniqueness' shares a budget, and attention_share takes its"):
        build_compressor("prumerge", attention_share=0.5, frame_budget="uniqueness")


def test_frame_budgets_of_ragged_tokens(norm_top_k):
    """Frames of 5, 1, 0 and 3 tokens."""
    cell = torch.tensor([0, 1, 2, 3, 5, 7, 18, 19, 22])
    tokens = VideoTokens(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), (4, 2, 3), cell)
    for count in range(1, 10):
        assert len(norm_top_k(tokens=count, frame_budget="uniqueness").plan(tokens, {})) == count
    with pytest.raises(ValueError, match=r"frame_budget='uniqueness' needs scope='frame', got scope='video'"):
        norm_top_k(scope="video", frame_budget="uniqueness")
    with pytest.raises(ValueError, match=r"frame_budget cannot be 'unique', did you mean 'uniqueness'"):
        norm_top_k(frame_budget="unique")


def test_repeated_anchors_are_tokens_of_their_own(norm_top_k):
    tokens = scores_of(3.0, 1.0, 2.0).through(Plan.keep(torch.tensor([0, 2, 0, 1]), 3))
    assert norm_top_k(tokens=3, scope="video").plan(tokens, {}).kept().tolist() == [0, 1, 2]
    assert norm_top_k(tokens=2).plan(tokens, {}).kept().tolist() == [0, 2]


def test_scores_of_any_dtype(norm_top_k):
    maps = torch.randn(4, 3, 3, 8, dtype=torch.float64)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        out, plan = norm_top_k(retention=0.5)(maps.to(dtype))
        assert out.dtype == dtype
        assert torch.equal(out, maps.to(dtype).flatten(0, 2)[plan.kept()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "frames"}, "scope cannot be 'frames', did you mean 'frame'"),
        ({"retention": 0}, "retention must be a number above 0 and at most 1, got 0"),
        ({"retention": 0.5, "tokens": 3}, "given in one way"),
        ({"tokens_per_frame": 1.5}, "tokens_per_frame must be a whole number"),
    ],
)
def test_bad_options(norm_top_k, options, message):
    with pytest.raises(ValueError, match=message):
        norm_top_k(**options)


def test_highest():
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0, 0.0])
    assert highest(scores, 2).tolist() == [1, 3]
    assert highest(scores, 0).tolist() == []
    assert highest(scores, 9).tolist() == [0, 1, 2, 3, 4]


def test_highest_of_each_group_by_hand():
    scores = torch.tensor([1.0, 9.0, 5.0, 5.0, 4.0, 8.0])
    group = torch.tensor([2, 0, 0, 2, 0, 2])
    assert highest_per_group(scores, group, torch.tensor([2, 0, 1])).tolist() == [1, 2, 5]
    assert highest_per_group(scores, group, torch.tensor([0, 0, 3])).tolist() == [0, 3, 5]
    assert highest_per_group(scores, group, torch.tensor([0, 0, 0])).tolist() == []
